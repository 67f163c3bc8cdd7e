// RUN: moa-opt %s -p moa-infer-shapes | filecheck %s

// Result types become as static as the operands' types allow; function types follow.

// CHECK-LABEL: func.func @one_operand_knows(
// CHECK-SAME:    -> tensor<?x3xf64>
func.func @one_operand_knows(%a: tensor<3x?xf64>) -> tensor<?x?xf64> {
  // CHECK: moa.transpose {{.*}} -> tensor<?x3xf64>
  %t = moa.transpose %a : tensor<3x?xf64> -> tensor<?x?xf64>
  // CHECK: func.return {{.*}} : tensor<?x3xf64>
  func.return %t : tensor<?x?xf64>
}

// CHECK-LABEL: func.func @each_operand_knows_a_part(
// CHECK-SAME:    -> tensor<3x5xf64>
func.func @each_operand_knows_a_part(%a: tensor<3x?xf64>, %b: tensor<?x5xf64>) -> tensor<?x?xf64> {
  // CHECK: moa.inner add mul {{.*}} -> tensor<3x5xf64>
  %c = moa.inner add mul %a, %b : tensor<3x?xf64>, tensor<?x5xf64> -> tensor<?x?xf64>
  func.return %c : tensor<?x?xf64>
}

// CHECK-LABEL: func.func @known_extents_go_on(
// CHECK-SAME:    -> tensor<4xf64>
func.func @known_extents_go_on(%a: tensor<3x4xf64>) -> tensor<?xf64> {
  // CHECK: moa.map exp {{.*}} -> tensor<3x4xf64>
  %e = moa.map exp %a : tensor<3x4xf64> -> tensor<?x?xf64>
  // CHECK: moa.reduce add {{.*}} -> tensor<4xf64>
  %s = moa.reduce add %e : tensor<?x?xf64> -> tensor<?xf64>
  func.return %s : tensor<?xf64>
}

// A constant is data that the types of others may depend on.
// CHECK-LABEL: func.func @constants_are_known(
// CHECK-SAME:    -> tensor<4xindex>
func.func @constants_are_known() -> tensor<?xindex> {
  %n = moa.constant dense<4> : tensor<index>
  // CHECK: moa.iota {{.*}} -> tensor<4xindex>
  %k = moa.iota %n : tensor<index> -> tensor<?xindex>
  func.return %k : tensor<?xindex>
}

func.func private @turn(%cell: tensor<?x?xf64>) -> tensor<?x?xf64> {
  %t = moa.transpose %cell : tensor<?x?xf64> -> tensor<?x?xf64>
  func.return %t : tensor<?x?xf64>
}

// The shape of a cell function's result follows from the cells.
// CHECK-LABEL: func.func @cells_are_known(
// CHECK-SAME:    -> tensor<2x4x3xf64>
func.func @cells_are_known(%a: tensor<2x3x4xf64>) -> tensor<?x?x?xf64> {
  // CHECK: moa.omega @turn <2> {{.*}} -> tensor<2x4x3xf64>
  %t = moa.omega @turn <2> (%a) : (tensor<2x3x4xf64>) -> tensor<?x?x?xf64>
  func.return %t : tensor<?x?x?xf64>
}

// What a result type states already stays.
// CHECK-LABEL: func.func @stated_extents_stay(
func.func @stated_extents_stay(%a: tensor<?xf64>) -> tensor<3xf64> {
  // CHECK: moa.map exp {{.*}} : tensor<?xf64> -> tensor<3xf64>
  %e = moa.map exp %a : tensor<?xf64> -> tensor<3xf64>
  func.return %e : tensor<3xf64>
}
