// RUN: moa-opt %s -p moa-plan-launches | filecheck %s

// A launch becomes words of a plan, and device memory a part of what the caller gives.

builtin.module attributes {gpu.container_module} {
  func.func @f(%a: memref<?xf32>, %b: memref<?xf32> {moa.result}, %status: memref<3xi64> {moa.status}) {
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %c128 = arith.constant 128 : index
    %bytes = arith.constant 512 : i32
    %n = memref.dim %a, %c0 : memref<?xf32>
    %more = arith.cmpi sgt, %n, %c1 : index
    %cell = "gpu.alloc"(%n) <{operandSegmentSizes = array<i32: 0, 1, 0>}> : (index) -> memref<?xf64>
    scf.if %more {
      "gpu.launch_func"(%n, %c1, %c1, %c128, %c1, %c1, %bytes, %n, %cell) <{kernel = @kernels::@second, operandSegmentSizes = array<i32: 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 2, 0>}> : (index, index, index, index, index, index, i32, index, memref<?xf64>) -> ()
    }
    func.return
  }
  "gpu.module"() <{sym_name = "kernels"}> ({
    "gpu.func"() <{function_type = () -> ()}> ({
      "gpu.return"() : () -> ()
    }) {sym_name = "first", gpu.kernel} : () -> ()
    "gpu.func"() <{function_type = (index, memref<?xf64>) -> ()}> ({
    ^bb0(%n: index, %cell: memref<?xf64>):
      "gpu.return"() : () -> ()
    }) {sym_name = "second", gpu.kernel} : () -> ()
  }) : () -> ()
}

// The plan is the last argument but the status: 2 words, 8 of the launch, 1 + 5 of its
// arguments.
// CHECK-LABEL: func.func @f(
// CHECK-SAME:      %[[A:.*]]: memref<?xf32>, %[[B:.*]]: memref<?xf32> {moa.result}, %[[PLAN:.*]]: memref<16xi64> {moa.result, moa.plan}, %[[STATUS:.*]]: memref<3xi64> {moa.status})
// CHECK-SAME:      moa.launches = [{kernel = @kernels::@second, arguments = [1 : i64, 5 : i64]}]
// Nothing is needed so far; a launch in a branch may not happen.
// CHECK-NEXT:    %[[NONE:.*]] = arith.constant 0 : i64
// CHECK-NEXT:    %[[NEEDED:.*]] = arith.constant 1 : index
// CHECK-NEXT:    memref.store %[[NONE]], %[[PLAN]][%[[NEEDED]]]
// CHECK-NEXT:    %[[NOT:.*]] = arith.constant 0 : i64
// CHECK-NEXT:    %[[NUMBER:.*]] = arith.constant 2 : index
// CHECK-NEXT:    memref.store %[[NOT]], %[[PLAN]][%[[NUMBER]]]
// Device memory, in multiples of 256 bytes.
// CHECK:         %[[COUNT:.*]] = arith.index_cast %[[N:.*]] : index to i64
// CHECK-NEXT:    %[[WIDTH:.*]] = arith.constant 8 : i64
// CHECK-NEXT:    %[[BYTES:.*]] = arith.muli %[[COUNT]], %[[WIDTH]] : i64
// CHECK:         %[[UP:.*]] = arith.addi %[[BYTES]], %
// CHECK-NEXT:    %[[ROUNDED:.*]] = arith.andi %[[UP]], %
// CHECK:         %[[TAKEN:.*]] = memref.load %[[PLAN]]
// CHECK-NEXT:    %[[TOTAL:.*]] = arith.addi %[[TAKEN]], %[[ROUNDED]] : i64
// CHECK:         memref.store %[[TOTAL]], %[[PLAN]]
// CHECK:         %[[BASE:.*]] = memref.load %[[PLAN]]
// CHECK-NEXT:    %[[ADDRESS:.*]] = arith.addi %[[BASE]], %[[TAKEN]] : i64
// CHECK-NOT:     gpu.alloc
// CHECK:         scf.if
// The kernel's number, counted from 1.
// CHECK:           %[[SECOND:.*]] = arith.constant 2 : i64
// CHECK-NEXT:      %[[AT:.*]] = arith.constant 2 : index
// CHECK-NEXT:      memref.store %[[SECOND]], %[[PLAN]][%[[AT]]]
// CHECK-NEXT:      %[[GRID:.*]] = arith.index_cast %[[N]] : index to i64
// CHECK-NEXT:      %[[AT:.*]] = arith.constant 3 : index
// CHECK-NEXT:      memref.store %[[GRID]], %[[PLAN]][%[[AT]]]
// CHECK:           %[[SHARED:.*]] = arith.extsi %{{.*}} : i32 to i64
// CHECK-NEXT:      %[[AT:.*]] = arith.constant 9 : index
// CHECK-NEXT:      memref.store %[[SHARED]], %[[PLAN]][%[[AT]]]
// Memory is two addresses, an offset, a size and a stride.
// CHECK:           %[[AT:.*]] = arith.constant 11 : index
// CHECK-NEXT:      memref.store %[[ADDRESS]], %[[PLAN]][%[[AT]]]
// CHECK:           %[[AT:.*]] = arith.constant 12 : index
// CHECK-NEXT:      memref.store %[[ADDRESS]], %[[PLAN]][%[[AT]]]
// CHECK:           %[[AT:.*]] = arith.constant 14 : index
// CHECK-NEXT:      memref.store %[[COUNT]], %[[PLAN]][%[[AT]]]
// CHECK-NOT:     gpu.launch_func
