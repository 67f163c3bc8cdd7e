// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// δA is the number of axes of A.

// CHECK-LABEL: func.func @psi_of_dim(
func.func @psi_of_dim(%a: tensor<?x4x5xf64>) -> tensor<index> {
  %r = moa.dim %a : tensor<?x4x5xf64> -> tensor<index>
  func.return %r : tensor<index>
}
// CHECK-NEXT:  %[[THREE:.*]] = arith.constant 3 : index
// CHECK-NEXT:  moa.comprehension [] -> tensor<index>
// CHECK-NEXT:    moa.yield %[[THREE]] : index
