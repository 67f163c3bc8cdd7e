// RUN: moa-opt %s -p moa-cpu --split-input-file --verify-diagnostics | filecheck %s

// The pipeline reports what its passes report.

func.func @recursion_one(%a: tensor<3xf64>) -> tensor<3xf64> {
  %b = func.call @recursion_two(%a) : (tensor<3xf64>) -> tensor<3xf64>
  func.return %b : tensor<3xf64>
}
func.func @recursion_two(%a: tensor<3xf64>) -> tensor<3xf64> {
  %b = func.call @recursion_one(%a) : (tensor<3xf64>) -> tensor<3xf64>
  func.return %b : tensor<3xf64>
}
// CHECK: function @recursion_one is recursive; an array program must not be

// -----

func.func @matrix_between(%a: tensor<?x?xf64>, %out: memref<?x?xf64>) -> tensor<?x?xf64> {
  %n = moa.extent %a, 0 : tensor<?x?xf64>
  %scratch = memref.alloc(%n) : memref<?xf64>
  func.return %a : tensor<?x?xf64>
}
// CHECK: @matrix_between: scratch memory must not grow with the input: {{.*}} got memref.alloc of 1 extents of the input
