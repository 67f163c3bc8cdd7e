// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ ⊘A = (Φi) ψ A
// i ψ (t ⊘ A) = i[t] ψ A: source axis k is result axis t[k].

// CHECK-LABEL: func.func @psi_of_transpose(
// CHECK-SAME:    %[[A:.*]]: tensor<3x4xf64>)
func.func @psi_of_transpose(%a: tensor<3x4xf64>) -> tensor<4x3xf64> {
  %b = moa.transpose %a : tensor<3x4xf64> -> tensor<4x3xf64>
  func.return %b : tensor<4x3xf64>
}
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[A]], 1
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK:       moa.comprehension [%[[I:.*]] < %[[M]], %[[J:.*]] < %[[N]]] -> tensor<4x3xf64>
// CHECK-NEXT:    moa.at %[[A]][%[[J]], %[[I]]]

// A cycle of three axes tells a permutation from its inverse.
// CHECK-LABEL: func.func @psi_of_transpose_by_a_cycle(
// CHECK-SAME:    %[[A:.*]]: tensor<3x4x5xf64>)
func.func @psi_of_transpose_by_a_cycle(%a: tensor<3x4x5xf64>) -> tensor<5x3x4xf64> {
  %b = moa.transpose %a [1, 2, 0] : tensor<3x4x5xf64> -> tensor<5x3x4xf64>
  func.return %b : tensor<5x3x4xf64>
}
// CHECK-DAG:   %[[N0:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[N1:.*]] = moa.extent %[[A]], 1
// CHECK-DAG:   %[[N2:.*]] = moa.extent %[[A]], 2
// CHECK:       moa.comprehension [%[[I:.*]] < %[[N2]], %[[J:.*]] < %[[N0]], %[[K:.*]] < %[[N1]]] -> tensor<5x3x4xf64>
// CHECK-NEXT:    moa.at %[[A]][%[[J]], %[[K]], %[[I]]]

// ⊘⊘A = A
// CHECK-LABEL: func.func @psi_of_transpose_of_transpose(
// CHECK-SAME:    %[[A:.*]]: tensor<3x4xf64>)
func.func @psi_of_transpose_of_transpose(%a: tensor<3x4xf64>) -> tensor<3x4xf64> {
  %b = moa.transpose %a : tensor<3x4xf64> -> tensor<4x3xf64>
  %c = moa.transpose %b : tensor<4x3xf64> -> tensor<3x4xf64>
  func.return %c : tensor<3x4xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] ->
// CHECK-NEXT:    moa.at %[[A]][%[[I]], %[[J]]]
