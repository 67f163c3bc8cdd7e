// RUN: moa-opt %s -p moa-outline-kernels --split-input-file | filecheck %s
// RUN: moa-opt %s -p 'moa-outline-kernels{block=32}' --split-input-file | filecheck %s --check-prefix=SMALL

// Nested parallel loops become one kernel, a thread for each pair of indices. What the
// host computes is passed; what follows from constants is computed again.

func.func @twice(%a: memref<?xf32>, %b: memref<?xf32>, %n: index, %m: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %two = arith.constant 2.0 : f32
  "scf.parallel"(%c0, %n, %c1) <{operandSegmentSizes = array<i32: 1, 1, 1, 0>}> ({
  ^bb0(%i: index):
    %row = arith.muli %i, %m : index
    "scf.parallel"(%c0, %m, %c1) <{operandSegmentSizes = array<i32: 1, 1, 1, 0>}> ({
    ^bb1(%j: index):
      %at = arith.addi %row, %j : index
      %x = memref.load %a[%at] : memref<?xf32>
      %y = arith.mulf %x, %two : f32
      memref.store %y, %b[%at] : memref<?xf32>
      scf.reduce
    }) : (index, index, index) -> ()
    scf.reduce
  }) : (index, index, index) -> ()
  func.return
}
// CHECK:       builtin.module attributes {gpu.container_module}
// CHECK-LABEL: func.func @twice(
// CHECK-SAME:      %[[A:.*]]: memref<?xf32>, %[[B:.*]]: memref<?xf32>, %[[N:.*]]: index, %[[M:.*]]: index)
// CHECK:         %[[ROWS:.*]] = arith.maxsi %[[N]], %
// CHECK:         %[[COLUMNS:.*]] = arith.maxsi %[[M]], %
// CHECK:         %[[TOTAL:.*]] = arith.muli %[[ROWS]], %[[COLUMNS]] : index
// CHECK:         %[[WIDTH:.*]] = arith.constant 128 : index
// CHECK:         %[[BLOCKS:.*]] = arith.ceildivsi %[[TOTAL]], %[[WIDTH]] : index
// CHECK:         %[[ONE:.*]] = arith.constant 1 : index
// CHECK:         "gpu.launch_func"(%[[BLOCKS]], %[[ONE]], %[[ONE]], %[[WIDTH]], %[[ONE]], %[[ONE]], %[[M]], %[[A]], %[[B]], %[[ROWS]], %[[COLUMNS]], %[[TOTAL]])
// CHECK-SAME:        kernel = @kernels::@twice_kernel
// CHECK:       "gpu.module"() <{sym_name = "kernels"}>
// CHECK:       "gpu.func"()
// CHECK:         ^{{.*}}(%[[M:.*]]: index, %[[A:.*]]: memref<?xf32>, %[[B:.*]]: memref<?xf32>, %[[ROWS:.*]]: index, %[[COLUMNS:.*]]: index, %[[TOTAL:.*]]: index):
// CHECK:         %[[TWO:.*]] = arith.constant 2.000000e+00 : f32
// CHECK:         %[[BLOCK:.*]] = "gpu.block_id"() <{dimension = #gpu<dim x>}>
// CHECK:         %[[THREAD:.*]] = "gpu.thread_id"() <{dimension = #gpu<dim x>}>
// CHECK:         %[[START:.*]] = arith.muli %[[BLOCK]], %
// CHECK:         %[[TASK:.*]] = arith.addi %[[START]], %[[THREAD]] : index
// CHECK:         %[[IS:.*]] = arith.cmpi slt, %[[TASK]], %[[TOTAL]] : index
// CHECK:         scf.if %[[IS]] {
// CHECK:           %[[J:.*]] = arith.remui %[[TASK]], %[[COLUMNS]] : index
// CHECK:           %[[I:.*]] = arith.divui %[[TASK]], %[[COLUMNS]] : index
// CHECK:           %[[ROW:.*]] = arith.muli %[[I]], %[[M]] : index
// CHECK:           %[[AT:.*]] = arith.addi %[[ROW]], %[[J]] : index
// CHECK:           %[[X:.*]] = memref.load %[[A]][%[[AT]]] : memref<?xf32>
// CHECK:           %[[Y:.*]] = arith.mulf %[[X]], %[[TWO]] : f32
// CHECK:           memref.store %[[Y]], %[[B]][%[[AT]]] : memref<?xf32>
// CHECK:         "gpu.return"()
// CHECK:       sym_name = "twice_kernel"
// CHECK-SAME:      gpu.known_block_size = array<i32: 128, 1, 1>, gpu.kernel

// SMALL:       gpu.known_block_size = array<i32: 32, 1, 1>

// -----

// Loads, stores and sequential loops share a kernel of one thread; what others need of
// them lies in device memory. The host keeps checks of extents.

func.func @scaled(%a: memref<?xf32>, %b: memref<?xf32> {moa.result}, %status: memref<3xi64> {moa.status}) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %one = arith.constant 1 : i64
  %zero = arith.constant 0.0 : f32
  %n = memref.dim %a, %c0 : memref<?xf32>
  %m = memref.dim %b, %c0 : memref<?xf32>
  %same = arith.cmpi eq, %n, %m : index
  scf.if %same {
    %sum = scf.for %k = %c0 to %n step %c1 iter_args(%s = %zero) -> (f32) {
      %x = memref.load %a[%k] : memref<?xf32>
      %t = arith.addf %x, %s : f32
      scf.yield %t : f32
    }
    %half = arith.addf %sum, %sum : f32
    "scf.parallel"(%c0, %n, %c1) <{operandSegmentSizes = array<i32: 1, 1, 1, 0>}> ({
    ^bb0(%i: index):
      %x = memref.load %a[%i] : memref<?xf32>
      %y = arith.divf %x, %half : f32
      memref.store %y, %b[%i] : memref<?xf32>
      scf.reduce
    }) : (index, index, index) -> ()
  } else {
    memref.store %one, %status[%c0] : memref<3xi64>
  }
  func.return
}
// CHECK-LABEL: func.func @scaled(
// CHECK-SAME:      %[[A:.*]]: memref<?xf32>, %[[B:.*]]: memref<?xf32> {moa.result}, %[[STATUS:.*]]: memref<3xi64>
// CHECK:         scf.if
// CHECK:           %[[CELL:.*]] = "gpu.alloc"(%{{.*}}) {{.*}} : (index) -> memref<?xf32>
// CHECK-NOT:       memref.load
// CHECK:           "gpu.launch_func"(%[[ONE:.*]], %[[ONE]], %[[ONE]], %[[ONE]], %[[ONE]], %[[ONE]], %{{.*}}, %[[A]], %[[CELL]]) <{kernel = @kernels::@scaled_kernel
// CHECK:           "gpu.launch_func"({{.*}}kernel = @kernels::@scaled_kernel_1
// CHECK:         } else {
// CHECK:           memref.store %{{.*}}, %[[STATUS]]
// CHECK:       "gpu.func"()
// CHECK:         %[[SUM:.*]] = scf.for
// CHECK:         memref.store %[[HALF:.*]], %[[CELL:.*]][%{{.*}}] : memref<?xf32>
// CHECK:       sym_name = "scaled_kernel", gpu.known_block_size = array<i32: 1, 1, 1>
// CHECK:       "gpu.func"()
// CHECK:         %[[HALF:.*]] = memref.load
// CHECK:         scf.if
// CHECK:           arith.divf %{{.*}}, %[[HALF]] : f32
// CHECK:       sym_name = "scaled_kernel_1"

// -----

// A kernel that is written already keeps its attributes; its indices are operations.

func.func @launched(%a: memref<?xf32>) {
  %c1 = arith.constant 1 : index
  %c64 = arith.constant 64 : index
  %blocks = arith.constant 5 : index
  %bytes = arith.constant 4096 : i32
  "gpu.launch"(%blocks, %c1, %c1, %c64, %c1, %c1, %bytes) <{operandSegmentSizes = array<i32: 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1>}> ({
  ^bb0(%bx: index, %by: index, %bz: index, %tx: index, %ty: index, %tz: index, %gx: index, %gy: index, %gz: index, %sx: index, %sy: index, %sz: index):
    %x = memref.load %a[%tx] : memref<?xf32>
    "gpu.barrier"() : () -> ()
    memref.store %x, %a[%bx] : memref<?xf32>
    "gpu.terminator"() : () -> ()
  }) {nvvm.minctasm = 1 : i32} : (index, index, index, index, index, index, i32) -> ()
  func.return
}
// CHECK-LABEL: func.func @launched(
// CHECK-SAME:      %[[A:.*]]: memref<?xf32>)
// CHECK:         %[[BYTES:.*]] = arith.constant 4096 : i32
// CHECK:         "gpu.launch_func"({{.*}}, %[[BYTES]], %[[A]])
// CHECK:       "gpu.func"()
// CHECK:         %[[BLOCK:.*]] = "gpu.block_id"() <{dimension = #gpu<dim x>}>
// CHECK:         %[[THREAD:.*]] = "gpu.thread_id"() <{dimension = #gpu<dim x>}>
// CHECK:         memref.load %{{.*}}[%[[THREAD]]]
// CHECK:         "gpu.barrier"()
// CHECK:         memref.store %{{.*}}, %{{.*}}[%[[BLOCK]]]
// CHECK:         "gpu.return"()
// CHECK:       gpu.known_block_size = array<i32: 64, 1, 1>
// CHECK-SAME:      nvvm.minctasm = 1 : i32

// -----

// Little memory of a task is local; much of it is a part of device memory.

func.func @scratch(%b: memref<?xf32>, %n: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c8 = arith.constant 8 : index
  %little = memref.alloca(%c8) : memref<?xf32>
  "scf.parallel"(%c0, %n, %c1) <{operandSegmentSizes = array<i32: 1, 1, 1, 0>}> ({
  ^bb0(%i: index):
    %much = memref.alloc(%n) : memref<?xf32>
    %x = memref.load %little[%c0] : memref<?xf32>
    memref.store %x, %much[%i] : memref<?xf32>
    %y = memref.load %much[%i] : memref<?xf32>
    memref.store %y, %b[%i] : memref<?xf32>
    memref.dealloc %much : memref<?xf32>
    scf.reduce
  }) : (index, index, index) -> ()
  func.return
}
// CHECK-LABEL: func.func @scratch(
// CHECK-SAME:      %[[B:.*]]: memref<?xf32>, %[[N:.*]]: index)
// CHECK-NOT:     memref.alloca
// CHECK:         %[[SIZE:.*]] = arith.muli %[[TASKS:.*]], %[[N]] : index
// CHECK:         "gpu.alloc"(%[[SIZE]])
// CHECK:       "gpu.func"()
// CHECK:         %[[LITTLE:.*]] = memref.alloca() : memref<8xf32>
// CHECK:         scf.if
// CHECK:           %[[START:.*]] = arith.muli %[[TASK:.*]], %[[N:.*]] : index
// CHECK:           %[[MUCH:.*]] = memref.reinterpret_cast %{{.*}} to offset: [%[[START]]], sizes: [%[[N]]], strides: [1]
// CHECK:           memref.load %[[LITTLE]]
// CHECK:           memref.store %{{.*}}, %[[MUCH]]
// CHECK-NOT:     memref.dealloc
