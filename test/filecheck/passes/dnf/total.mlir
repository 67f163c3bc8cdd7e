// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// τA = π(ρA), the product of the extents.

// CHECK-LABEL: func.func @psi_of_total(
// CHECK-SAME:    %[[A:.*]]: tensor<?x4xf64>)
func.func @psi_of_total(%a: tensor<?x4xf64>) -> tensor<index> {
  %t = moa.total %a : tensor<?x4xf64> -> tensor<index>
  func.return %t : tensor<index>
}
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[A]], 1
// CHECK:       moa.comprehension [] -> tensor<index>
// CHECK-NEXT:    %[[ALL:.*]] = arith.muli %[[N]], %[[M]] : index
// CHECK-NEXT:    moa.yield %[[ALL]] : index

// τ of a scalar is 1.
// CHECK-LABEL: func.func @psi_of_total_of_a_scalar(
func.func @psi_of_total_of_a_scalar(%a: tensor<f64>) -> tensor<index> {
  %t = moa.total %a : tensor<f64> -> tensor<index>
  func.return %t : tensor<index>
}
// CHECK-DAG:   %[[ONE:.*]] = arith.constant 1 : index
// CHECK:       moa.yield %[[ONE]] : index
