// RUN: moa-opt %s -p moa-check-storage --split-input-file --verify-diagnostics | filecheck %s
// RUN: not moa-opt %s -p moa-check-storage --split-input-file 2>&1 | filecheck %s --check-prefix=STATUS

// STATUS: @matrix_of_scores: scratch memory must not grow with the input

// An array between arguments and results, as a buffer.
func.func @matrix_of_scores(%a: memref<?x?xf64>, %b: memref<?x?xf64> {moa.result}) {
  %n = moa.extent %a, 0 : memref<?x?xf64>
  %m = moa.extent %a, 1 : memref<?x?xf64>
  %scores = moa.buffer [%n, %m] : memref<?xf64>
  func.return
}
// CHECK: @matrix_of_scores: scratch memory must not grow with the input: expected tile sizes or an accumulator over one output axis, got moa.buffer of 2 extents of the input

// -----

// Calling it accumulators does not help: one axis only, ...
func.func @matrix_of_accumulators(%b: memref<?x?xf64> {moa.result}) {
  %n = moa.extent %b, 0 : memref<?x?xf64>
  %m = moa.extent %b, 1 : memref<?x?xf64>
  %zero = arith.constant 0 : index
  moa.loop [%i = %zero to %n by 1] {
    %rows = moa.buffer accumulator [%n, %m] : memref<?xf64>
    moa.yield
  }
  func.return
}
// CHECK: @matrix_of_accumulators: {{.*}} got moa.buffer for accumulators over other than one output axis

// -----

// ... an axis of the output, ...
func.func @accumulators_over_an_input_axis(%a: memref<?xf64>, %b: memref<?xf64> {moa.result}) {
  %n = moa.extent %a, 0 : memref<?xf64>
  %m = moa.extent %b, 0 : memref<?xf64>
  %zero = arith.constant 0 : index
  moa.loop [%i = %zero to %m by 1] {
    %row = moa.buffer accumulator [%n] : memref<?xf64>
    moa.yield
  }
  func.return
}
// CHECK: @accumulators_over_an_input_axis: {{.*}} got moa.buffer for accumulators over other than one output axis

// -----

// ... and inside a loop, or they are as large as the output.
func.func @accumulators_outside_of_loops(%b: memref<?xf64> {moa.result}) {
  %n = moa.extent %b, 0 : memref<?xf64>
  %row = moa.buffer accumulator [%n] : memref<?xf64>
  func.return
}
// CHECK: @accumulators_outside_of_loops: {{.*}} got moa.buffer for accumulators outside of every loop

// -----

// An extent in disguise.
func.func @half_an_extent(%a: memref<?xf64>, %b: memref<?xf64> {moa.result}) {
  %n = moa.extent %a, 0 : memref<?xf64>
  %two = arith.constant 2 : index
  %half = arith.divsi %n, %two : index
  %scratch = moa.buffer [%half] : memref<?xf64>
  func.return
}
// CHECK: @half_an_extent: {{.*}} got moa.buffer of 1 extents of the input

// -----

// Extents that types give are extents, too.
func.func @static_extent(%a: memref<3xf64>, %b: memref<3xf64> {moa.result}) {
  %n = moa.extent %a, 0 : memref<3xf64>
  %scratch = moa.buffer [%n] : memref<?xf64>
  func.return
}
// CHECK: @static_extent: {{.*}} got moa.buffer of 1 extents of the input

// -----

// Memory by other means.
func.func @allocation(%a: memref<?xf64>, %b: memref<?xf64> {moa.result}) {
  %n = moa.extent %a, 0 : memref<?xf64>
  %scratch = memref.alloc(%n) : memref<?xf64>
  func.return
}
// CHECK: @allocation: {{.*}} got memref.alloc of 1 extents of the input

// -----

func.func @allocation_on_the_stack(%a: memref<?xf64>, %b: memref<?xf64> {moa.result}) {
  %n = moa.extent %a, 0 : memref<?xf64>
  %scratch = memref.alloca(%n) : memref<?xf64>
  func.return
}
// CHECK: @allocation_on_the_stack: {{.*}} got memref.alloca of 1 extents of the input

// -----

// A number may be too large for a tile.
func.func @large_allocation(%b: memref<?xf64> {moa.result}) {
  %scratch = memref.alloc() : memref<1024x1024xf64>
  func.return
}
// CHECK: @large_allocation: {{.*}} got memref.alloc of 8388608 bytes, more than 262144
