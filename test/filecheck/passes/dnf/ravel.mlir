// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// <k> ψ rav A = γ'(k; ρA) ψ A

// CHECK-LABEL: func.func @psi_of_ravel(
// CHECK-SAME:    %[[A:.*]]: tensor<?x6xf64>)
func.func @psi_of_ravel(%a: tensor<?x6xf64>) -> tensor<?xf64> {
  %b = moa.ravel %a : tensor<?x6xf64> -> tensor<?xf64>
  func.return %b : tensor<?xf64>
}
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[A]], 1
// CHECK:       %[[TOTAL:.*]] = arith.muli %[[N]], %[[M]] : index
// CHECK:       moa.comprehension [%[[K:.*]] < %[[TOTAL]]] -> tensor<?xf64>
// CHECK-NEXT:    %[[COLUMN:.*]] = arith.remui %[[K]], %[[M]] : index
// CHECK-NEXT:    %[[ROW:.*]] = arith.divui %[[K]], %[[M]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[ROW]], %[[COLUMN]]]

// The order of the elements stays through any reshape: back in the first shape, nothing
// is left to compute.
// CHECK-LABEL: func.func @psi_of_reshape_of_ravel(
// CHECK-SAME:    %[[A:.*]]: tensor<4x6xf64>)
func.func @psi_of_reshape_of_ravel(%a: tensor<4x6xf64>) -> tensor<4x6xf64> {
  %t = moa.shape %a : tensor<4x6xf64> -> tensor<2xindex>
  %b = moa.ravel %a : tensor<4x6xf64> -> tensor<24xf64>
  %c = moa.reshape %t, %b : tensor<2xindex>, tensor<24xf64> -> tensor<4x6xf64>
  func.return %c : tensor<4x6xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] -> tensor<4x6xf64>
// CHECK-NEXT:    moa.at %[[A]][%[[I]], %[[J]]]
