// RUN: moa-opt %s -p moa-to-dnf --split-input-file --verify-diagnostics | filecheck %s

// Programs that have no denotational normal form.

func.func @ping(%a: tensor<3xf64>) -> tensor<3xf64> {
  %b = func.call @pong(%a) : (tensor<3xf64>) -> tensor<3xf64>
  func.return %b : tensor<3xf64>
}
func.func @pong(%a: tensor<3xf64>) -> tensor<3xf64> {
  %b = func.call @ping(%a) : (tensor<3xf64>) -> tensor<3xf64>
  func.return %b : tensor<3xf64>
}
// CHECK: function @ping is recursive; an array program must not be

// -----

func.func @branches(%a: tensor<3xf64>) -> tensor<3xf64> {
  %b = moa.map exp %a : tensor<3xf64> -> tensor<3xf64>
  cf.br ^end
^end:
  func.return %a : tensor<3xf64>
}
// CHECK: function @branches: expected one block, got 2
