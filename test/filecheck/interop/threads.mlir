// REQUIRES: mlir-opt
// RUN: moa-opt %s -p moa-cpu --print-op-generic | %mlir_opt --verify-diagnostics | filecheck %s

// Outlined loops in the LLVM dialect: nothing else is left.

func.func @zero(%b: memref<?xf32>, %n: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  "scf.parallel"(%c0, %n, %c1) <{operandSegmentSizes = array<i32: 1, 1, 1, 0>}> ({
  ^bb0(%t: index):
    %zero = arith.constant 0.0 : f32
    memref.store %zero, %b[%t] : memref<?xf32>
    scf.reduce
  }) : (index, index, index) -> ()
  func.return
}
// CHECK-NOT:   unrealized_conversion_cast
// CHECK-LABEL: llvm.func internal @zero.share(
// CHECK:         llvm.atomicrmw add
// CHECK-LABEL: llvm.func internal @zero.parallel(
// CHECK:         llvm.call @GOMP_parallel(
// CHECK-NOT:   unrealized_conversion_cast
