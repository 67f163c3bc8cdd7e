// RUN: moa-opt %s -p moa-to-dnf --split-input-file --verify-diagnostics | filecheck %s

// A requirement that can only fail is an error now, with both numbers.

func.func @mismatch_behind_dynamic_types(%a: tensor<3x4xf64>, %b: tensor<3x4xf64>) -> tensor<?x?xf64> {
  %t = moa.transpose %a : tensor<3x4xf64> -> tensor<?x?xf64>
  %c = moa.pointwise add %t, %b : tensor<?x?xf64>, tensor<3x4xf64> -> tensor<?x?xf64>
  func.return %c : tensor<?x?xf64>
}
// CHECK: add: extents of axis 0 must be equal: expected 4 (axis 1 of a), got 3 (axis 0 of b)

// -----

// Cells need equal shapes.
func.func private @sum_of_ramp(%n: tensor<index>) -> tensor<index> {
  %k = moa.iota %n : tensor<index> -> tensor<?xindex>
  %s = moa.reduce add %k : tensor<?xindex> -> tensor<index>
  func.return %s : tensor<index>
}
func.func @extents_from_data_in_cells(%n: tensor<3xindex>) -> tensor<3xindex> {
  %s = moa.omega @sum_of_ramp <0> (%n) : (tensor<3xindex>) -> tensor<3xindex>
  func.return %s : tensor<3xindex>
}
// CHECK: extents inside a cell function must not depend on data
