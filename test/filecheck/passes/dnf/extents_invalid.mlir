// RUN: moa-opt %s -p moa-to-dnf --split-input-file --verify-diagnostics | filecheck %s

// Names of extents that do not fit the arguments' types.

func.func @no_array(%a: tensor<?xf64> {moa.extents = "n"}) -> tensor<?xf64> {
  func.return %a : tensor<?xf64>
}
// CHECK: moa.extents of argument a: expected an array of strings, got "n"

// -----

func.func @no_strings(%a: tensor<?xf64> {moa.extents = [3]}) -> tensor<?xf64> {
  func.return %a : tensor<?xf64>
}
// CHECK: moa.extents of argument a: expected an array of strings, got [3 : i64]

// -----

func.func @wrong_length(%a: tensor<?x?xf64> {moa.extents = ["n"]}) -> tensor<?x?xf64> {
  func.return %a : tensor<?x?xf64>
}
// CHECK: moa.extents of argument a: expected one entry for each axis, 2, got 1

// -----

func.func @no_name(%a: tensor<?xf64> {moa.extents = ["2 n"]}) -> tensor<?xf64> {
  func.return %a : tensor<?xf64>
}
// CHECK: moa.extents of argument a: expected a name, a number or "?" for axis 0, got "2 n"

// -----

func.func @other_number(%a: tensor<?x3xf64> {moa.extents = ["n", "4"]}) -> tensor<?x3xf64> {
  func.return %a : tensor<?x3xf64>
}
// CHECK: moa.extents of argument a: expected 3 for axis 1 of tensor<?x3xf64>, got 4

// -----

func.func @number_of_a_dynamic_extent(%a: tensor<?xf64> {moa.extents = ["4"]}) -> tensor<?xf64> {
  func.return %a : tensor<?xf64>
}
// CHECK: moa.extents of argument a: expected a name for axis 0 of tensor<?xf64>, got 4

// -----

func.func @contradictory_types(%a: tensor<3xf64> {moa.extents = ["n"]}, %b: tensor<4xf64> {moa.extents = ["n"]}) -> tensor<3xf64> {
  func.return %a : tensor<3xf64>
}
// CHECK: extent n: axis 0 of b must equal axis 0 of a: expected 3, got 4

// -----

func.func private @inside(%a: tensor<?xf64> {moa.extents = ["n"]}) -> tensor<?xf64> {
  func.return %a : tensor<?xf64>
}
func.func @names_inside(%a: tensor<?xf64>) -> tensor<?xf64> {
  %b = func.call @inside(%a) : (tensor<?xf64>) -> tensor<?xf64>
  func.return %b : tensor<?xf64>
}
// CHECK: function @inside is used in @names_inside, so it must not name extents (moa.extents)
