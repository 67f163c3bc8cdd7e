// RUN: moa-opt %s -p moa-infer-shapes --split-input-file --verify-diagnostics | filecheck %s

// Extents that contradict each other once they are known.

func.func @unequal_extents(%a: tensor<3x4xf64>, %b: tensor<3x4xf64>) -> tensor<?x?xf64> {
  %t = moa.transpose %a : tensor<3x4xf64> -> tensor<?x?xf64>
  %c = moa.pointwise add %t, %b : tensor<?x?xf64>, tensor<3x4xf64> -> tensor<?x?xf64>
  func.return %c : tensor<?x?xf64>
}
// CHECK: add: extents of axis 0 must be equal: expected 4 (axis 1 of a), got 3 (axis 0 of b)

// -----

func.func @index_out_of_range(%a: tensor<3x4xf64>) -> tensor<?xf64> {
  %t = moa.transpose %a : tensor<3x4xf64> -> tensor<?x?xf64>
  %i = moa.constant dense<4> : tensor<1xindex>
  %row = moa.psi %i, %t : tensor<1xindex>, tensor<?x?xf64> -> tensor<?xf64>
  func.return %row : tensor<?xf64>
}
// CHECK: psi: index entry 0 out of range of axis 0: expected less than 4 (axis 1 of a), got 4
