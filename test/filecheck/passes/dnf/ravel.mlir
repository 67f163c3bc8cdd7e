// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// <k> ψ rav A = γ'(k; ρA) ψ A

// CHECK-LABEL: func.func @psi_of_ravel(
// CHECK-SAME:    %[[A:.*]]: tensor<?x4x5xf64>)
func.func @psi_of_ravel(%a: tensor<?x4x5xf64>) -> tensor<?xf64> {
  %r = moa.ravel %a : tensor<?x4x5xf64> -> tensor<?xf64>
  func.return %r : tensor<?xf64>
}
// CHECK-DAG:   %[[L:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[A]], 1
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 2
// CHECK-DAG:   %[[PLANES:.*]] = arith.muli %[[L]], %[[M]] : index
// CHECK-DAG:   %[[TOTAL:.*]] = arith.muli %[[PLANES]], %[[N]] : index
// CHECK:       moa.comprehension [%[[K:.*]] < %[[TOTAL]]] -> tensor<?xf64>
// CHECK-NEXT:    %[[I2:.*]] = arith.remui %[[K]], %[[N]] : index
// CHECK-NEXT:    %[[REST:.*]] = arith.divui %[[K]], %[[N]] : index
// CHECK-NEXT:    %[[I1:.*]] = arith.remui %[[REST]], %[[M]] : index
// CHECK-NEXT:    %[[I0:.*]] = arith.divui %[[REST]], %[[M]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[I0]], %[[I1]], %[[I2]]]

// A vector stays as it is.
// CHECK-LABEL: func.func @psi_of_ravel_of_a_vector(
// CHECK-SAME:    %[[A:.*]]: tensor<?xf64>)
func.func @psi_of_ravel_of_a_vector(%a: tensor<?xf64>) -> tensor<?xf64> {
  %r = moa.ravel %a : tensor<?xf64> -> tensor<?xf64>
  func.return %r : tensor<?xf64>
}
// CHECK:       moa.comprehension [%[[K:.*]] < %{{.*}}] -> tensor<?xf64>
// CHECK-NEXT:    moa.at %[[A]][%[[K]]]

// A scalar is a vector of one.
// CHECK-LABEL: func.func @psi_of_ravel_of_a_scalar(
// CHECK-SAME:    %[[A:.*]]: tensor<f64>)
func.func @psi_of_ravel_of_a_scalar(%a: tensor<f64>) -> tensor<1xf64> {
  %r = moa.ravel %a : tensor<f64> -> tensor<1xf64>
  func.return %r : tensor<1xf64>
}
// CHECK:       moa.comprehension [%{{.*}} < %{{.*}}] -> tensor<1xf64>
// CHECK-NEXT:    moa.at %[[A]][]

// rav (t ρ̂ A) = rav A
// CHECK-LABEL: func.func @psi_of_ravel_of_reshape(
// CHECK-SAME:    %[[A:.*]]: tensor<12xf64>)
func.func @psi_of_ravel_of_reshape(%a: tensor<12xf64>) -> tensor<12xf64> {
  %t = moa.constant dense<[3, 4]> : tensor<2xindex>
  %b = moa.reshape %t, %a : tensor<2xindex>, tensor<12xf64> -> tensor<3x4xf64>
  %r = moa.ravel %b : tensor<3x4xf64> -> tensor<12xf64>
  func.return %r : tensor<12xf64>
}
// CHECK:       moa.comprehension [%[[K:.*]] < %{{.*}}] -> tensor<12xf64>
// CHECK-NEXT:    moa.at %[[A]][%[[K]]]
