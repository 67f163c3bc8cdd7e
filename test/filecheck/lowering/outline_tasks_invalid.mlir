// RUN: moa-opt %s -p moa-outline-tasks --split-input-file --verify-diagnostics | filecheck %s

// Only what has a place in memory is passed from thread to thread.

func.func @complex(%z: complex<f32>, %n: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  "scf.parallel"(%c0, %n, %c1) <{operandSegmentSizes = array<i32: 1, 1, 1, 0>}> ({
  ^bb0(%t: index):
    %x = complex.re %z : complex<f32>
    scf.reduce
  }) : (index, index, index) -> ()
  func.return
}
// CHECK: @complex: a task cannot use a value of type complex<f32> from outside
