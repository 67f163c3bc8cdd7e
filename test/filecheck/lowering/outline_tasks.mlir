// RUN: moa-opt %s -p moa-outline-tasks --split-input-file | filecheck %s

// The body of a parallel loop becomes a function; threads take tasks from a counter.

func.func @twice(%a: memref<?xf32>, %b: memref<?xf32>, %n: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %two = arith.constant 2.0 : f32
  "scf.parallel"(%c0, %n, %c1) <{operandSegmentSizes = array<i32: 1, 1, 1, 0>}> ({
  ^bb0(%t: index):
    %x = memref.load %a[%t] : memref<?xf32>
    %y = arith.mulf %x, %two : f32
    memref.store %y, %b[%t] : memref<?xf32>
    scf.reduce
  }) : (index, index, index) -> ()
  func.return
}
// CHECK:       llvm.mlir.global external @moa_num_threads()
// CHECK:       llvm.func @GOMP_parallel(!llvm.ptr, !llvm.ptr, i32, i32)
// CHECK:       llvm.func @omp_get_max_threads() -> i32

// One task; what follows from constants is not passed.
// CHECK-LABEL: func.func private @twice.task(
// CHECK-SAME:      %[[A:.*]]: memref<?xf32>, %[[B:.*]]: memref<?xf32>, %[[T:.*]]: index)
// CHECK:         %[[TWO:.*]] = arith.constant 2.000000e+00 : f32
// CHECK-NEXT:    %[[X:.*]] = memref.load %[[A]][%[[T]]]
// CHECK-NEXT:    %[[Y:.*]] = arith.mulf %[[X]], %[[TWO]] : f32
// CHECK-NEXT:    memref.store %[[Y]], %[[B]][%[[T]]]
// CHECK-NEXT:    func.return

// A range of tasks.
// CHECK-LABEL: func.func private @twice.tasks(
// CHECK-SAME:      %[[A:.*]]: memref<?xf32>, %[[B:.*]]: memref<?xf32>, %[[FROM:.*]]: index, %[[TO:.*]]: index)
// CHECK:         scf.for %[[T:.*]] = %[[FROM]] to %[[TO]] step %{{.*}} {
// CHECK-NEXT:      func.call @twice.task(%[[A]], %[[B]], %[[T]])

// What a thread does: the next chunk, until none is left.
// CHECK-LABEL: func.func private @twice.share(
// CHECK-SAME:      %[[A:.*]]: memref<?xf32>, %[[B:.*]]: memref<?xf32>, %[[CELLS:.*]]: memref<2xi64>, %[[COUNT:.*]]: index, %[[CHUNK:.*]]: index)
// CHECK:         scf.while
// CHECK:           "memref.atomic_rmw"(%{{.*}}, %[[CELLS]], %{{.*}}) <{kind = 1 : i64}>
// CHECK:         ^{{.*}}(%[[FIRST:.*]]: index):
// CHECK-NEXT:      %[[END:.*]] = arith.addi %[[FIRST]], %[[CHUNK]]
// CHECK-NEXT:      %[[STOP:.*]] = arith.minsi %[[END]], %[[COUNT]]
// CHECK-NEXT:      func.call @twice.tasks(%[[A]], %[[B]], %[[FIRST]], %[[STOP]])
// CHECK-NEXT:      scf.yield

// The same, as OpenMP calls it: in the floating-point environment of the caller.
// CHECK-LABEL: llvm.func internal @twice.thread(
// CHECK:         llvm.call @fegetenv(%[[OWN:.*]]) :
// CHECK:         llvm.call @fesetenv(%[[CALLERS:.*]]) :
// CHECK:         func.call @twice.share(
// CHECK-NEXT:    llvm.call @fesetenv(%[[OWN]]) :

// All threads, or the calling one.
// CHECK-LABEL: func.func private @twice.parallel(
// CHECK:         llvm.mlir.addressof @moa_num_threads
// CHECK:         scf.if %{{.*}} {
// CHECK:           llvm.call @fegetenv(
// CHECK:           %[[THREAD:.*]] = llvm.mlir.addressof @twice.thread
// CHECK:           llvm.call @GOMP_parallel(%[[THREAD]],
// CHECK-NEXT:    } else {
// CHECK-NEXT:      func.call @twice.tasks(

// CHECK-LABEL: func.func @twice(
// CHECK-NOT:     scf.parallel
// CHECK:         func.call @twice.parallel(

// -----

// The iterations from %n up to %m in steps of %k, of which there are few additions in each.

func.func @strided(%b: memref<?xf32>, %n: index, %m: index, %k: index) {
  "scf.parallel"(%n, %m, %k) <{operandSegmentSizes = array<i32: 1, 1, 1, 0>}> ({
  ^bb0(%t: index):
    %zero = arith.constant 0.0 : f32
    memref.store %zero, %b[%t] : memref<?xf32>
    scf.reduce
  }) {moa.work = 3 : i64} : (index, index, index) -> ()
  func.return
}
// CHECK-LABEL: func.func private @strided.task(
// CHECK-SAME:      %[[B:.*]]: memref<?xf32>, %[[N:.*]]: index, %[[K:.*]]: index, %[[T:.*]]: index)
// CHECK-NEXT:    %[[DISTANCE:.*]] = arith.muli %[[T]], %[[K]]
// CHECK-NEXT:    %[[I:.*]] = arith.addi %[[N]], %[[DISTANCE]]
// CHECK:         memref.store %{{.*}}, %[[B]][%[[I]]]
// CHECK-LABEL: func.func private @strided.parallel(
// CHECK-SAME:      %[[COUNT:[a-z0-9]*]]: index) attributes
// CHECK:         %[[WORK:.*]] = arith.constant 3 : index
// CHECK-NEXT:    %[[ALL:.*]] = arith.muli %[[COUNT]], %[[WORK]]
// CHECK-NEXT:    %[[LEAST:.*]] = arith.constant 20000 : index
// CHECK-NEXT:    arith.cmpi sge, %[[ALL]], %[[LEAST]]
// CHECK:         %[[MOST:.*]] = arith.constant 2796202 : index
// CHECK-NEXT:    arith.minsi %{{.*}}, %[[MOST]]
// CHECK-LABEL: func.func @strided(
// CHECK-SAME:      %[[B:.*]]: memref<?xf32>, %[[N:.*]]: index, %[[M:.*]]: index, %[[K:.*]]: index)
// CHECK-NEXT:    %[[SPAN:.*]] = arith.subi %[[M]], %[[N]]
// CHECK-NEXT:    %[[COUNT:.*]] = arith.ceildivsi %[[SPAN]], %[[K]]
// CHECK-NEXT:    func.call @strided.parallel(%[[B]], %[[N]], %[[K]], %[[COUNT]])

// -----

// Each thread has a status of its own. The first chunk that fails runs once more.

func.func @checked(%n: index, %status: memref<3xi64> {moa.status}) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  "scf.parallel"(%c0, %n, %c1) <{operandSegmentSizes = array<i32: 1, 1, 1, 0>}> ({
  ^bb0(%t: index):
    %one = arith.constant 1 : i64
    memref.store %one, %status[%c0] : memref<3xi64>
    scf.reduce
  }) : (index, index, index) -> ()
  func.return
}
// CHECK-LABEL: func.func private @checked.share(
// CHECK-SAME:      %[[CALLERS:.*]]: memref<3xi64>, %[[CELLS:.*]]: memref<2xi64>, %{{.*}}: index, %{{.*}}: index)
// CHECK:         %[[OWN:.*]] = memref.alloca() {{.*}}: memref<3xi64>
// CHECK:           func.call @checked.tasks(%[[OWN]], %[[FIRST:.*]], %{{.*}})
// CHECK:           %[[NUMBER:.*]] = memref.load %[[OWN]]
// CHECK-NEXT:      %[[FAILED:.*]] = arith.cmpi ne, %[[NUMBER]]
// CHECK-NEXT:      scf.if %[[FAILED]] {
// CHECK:             %[[AT:.*]] = arith.index_cast %[[FIRST]] : index to i64
// CHECK-NEXT:        "memref.atomic_rmw"(%[[AT]], %[[CELLS]], %{{.*}}) <{kind = 11 : i64}>
// CHECK-LABEL: func.func private @checked.parallel(
// CHECK-SAME:      %[[CALLERS:.*]]: memref<3xi64>, %[[COUNT:.*]]: index)
// CHECK:           llvm.call @GOMP_parallel
// CHECK:           %[[FIRST:.*]] = arith.index_cast %{{.*}} : i64 to index
// CHECK-NEXT:      %[[FAILED:.*]] = arith.cmpi slt, %[[FIRST]], %[[COUNT]]
// CHECK-NEXT:      scf.if %[[FAILED]] {
// CHECK:             func.call @checked.tasks(%[[CALLERS]], %[[FIRST]], %{{.*}})

// -----

// Loops over several axes, and inside of a task, stay as they are.

func.func @left_alone(%b: memref<?xf32>, %n: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  "scf.parallel"(%c0, %c0, %n, %n, %c1, %c1) <{operandSegmentSizes = array<i32: 2, 2, 2, 0>}> ({
  ^bb0(%t: index, %u: index):
    "scf.parallel"(%c0, %n, %c1) <{operandSegmentSizes = array<i32: 1, 1, 1, 0>}> ({
    ^bb1(%v: index):
      %zero = arith.constant 0.0 : f32
      memref.store %zero, %b[%v] : memref<?xf32>
      scf.reduce
    }) : (index, index, index) -> ()
    scf.reduce
  }) : (index, index, index, index, index, index) -> ()
  func.return
}
// CHECK-NOT:   GOMP_parallel
// CHECK-LABEL: func.func @left_alone(
// CHECK-COUNT-2: "scf.parallel"

// -----

// Where it is known that one thread does all, there is nothing to share.

func.func @small(%b: memref<?xf32>) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c7 = arith.constant 7 : index
  %c8 = arith.constant 8 : index
  %most = arith.maxsi %c8, %c0 : index
  %up = arith.addi %most, %c7 : index
  %n = arith.divui %up, %c8 : index
  %count = arith.muli %n, %c8 : index
  "scf.parallel"(%c0, %count, %c1) <{operandSegmentSizes = array<i32: 1, 1, 1, 0>}> ({
  ^bb0(%t: index):
    %zero = arith.constant 0.0 : f32
    memref.store %zero, %b[%t] : memref<?xf32>
    scf.reduce
  }) {moa.work = 100 : i64} : (index, index, index) -> ()
  func.return
}
// CHECK-NOT:   GOMP_parallel
// CHECK-LABEL: func.func private @small.task(
// CHECK-LABEL: func.func private @small.tasks(
// CHECK-NOT:   @small.share
// CHECK-LABEL: func.func @small(
// CHECK:         %[[COUNT:.*]] = arith.muli
// CHECK:         %[[FROM:.*]] = arith.constant 0 : index
// CHECK-NEXT:    func.call @small.tasks(%{{.*}}, %[[FROM]], %[[COUNT]])
