// RUN: moa-opt %s -p moa-check-storage | filecheck %s

// Scratch memory whose size is a number, or a row of accumulators, is within bounds.

// CHECK-LABEL: func.func @no_scratch(
func.func @no_scratch(%a: memref<?xf64>, %b: memref<?xf64> {moa.result}) {
  // CHECK: func.return
  func.return
}

// CHECK-LABEL: func.func @tile(
func.func @tile() {
  // CHECK: moa.buffer
  %n = arith.constant 96 : index
  %tile = moa.buffer [%n] : memref<?xf64>
  // CHECK: memref.alloc
  %other = memref.alloc() : memref<16x16xf64>
  func.return
}

// One output axis, within the loop over the others: n elements for a result of n * m.
// CHECK-LABEL: func.func @row_of_accumulators(
func.func @row_of_accumulators(%b: memref<?x?xf64> {moa.result}) {
  %n = moa.extent %b, 0 : memref<?x?xf64>
  %m = moa.extent %b, 1 : memref<?x?xf64>
  %zero = arith.constant 0 : index
  moa.loop [%i = %zero to %n by 1] {
    // CHECK: moa.buffer accumulator
    %row = moa.buffer accumulator [%m] : memref<?xf64>
    moa.yield
  }
  func.return
}
