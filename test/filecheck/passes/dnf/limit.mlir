// RUN: not moa-opt %s -p 'moa-to-dnf{limit=4}' 2>&1 | filecheck %s
// RUN: moa-opt %s -p moa-to-dnf | filecheck %s --check-prefix=ENOUGH

// The normal form is call-by-name, so its size may grow exponentially: it is bounded.

// ENOUGH-LABEL: func.func @powers(
func.func @powers(%a: tensor<4x4xf64>) -> tensor<4x4xf64> {
  %a2 = moa.inner add mul %a, %a : tensor<4x4xf64>, tensor<4x4xf64> -> tensor<4x4xf64>
  %a4 = moa.inner add mul %a2, %a2 : tensor<4x4xf64>, tensor<4x4xf64> -> tensor<4x4xf64>
  %a8 = moa.inner add mul %a4, %a4 : tensor<4x4xf64>, tensor<4x4xf64> -> tensor<4x4xf64>
  func.return %a8 : tensor<4x4xf64>
}
// CHECK: the normal form of @powers is too large: more than 4 reduction steps (moa-to-dnf{limit=...}); the program uses intermediate arrays under too many different indices

// Seven inner products, though the program has three.
// ENOUGH-COUNT-7: moa.fold add
// ENOUGH-NOT:     moa.fold
