// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// (i ++ j) ψ (A f•g B) = f fold_k (((i ++ <k>) ψ A) g ((<k> ++ j) ψ B))

// CHECK-LABEL: func.func @psi_of_inner(
// CHECK-SAME:    %[[A:.*]]: tensor<3x4xf64>, %[[B:.*]]: tensor<4x5xf64>)
func.func @psi_of_inner(%a: tensor<3x4xf64>, %b: tensor<4x5xf64>) -> tensor<3x5xf64> {
  %c = moa.inner add mul %a, %b : tensor<3x4xf64>, tensor<4x5xf64> -> tensor<3x5xf64>
  func.return %c : tensor<3x5xf64>
}
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[B]], 1
// CHECK-DAG:   %[[L:.*]] = moa.extent %[[A]], 1
// CHECK:       moa.comprehension [%[[I:.*]] < %[[N]], %[[J:.*]] < %[[M]]] -> tensor<3x5xf64>
// CHECK-NEXT:    %[[SUM:.*]] = moa.fold add [%[[K:.*]] = %{{.*}} to %[[L]]] -> f64
// CHECK-NEXT:      %[[X:.*]] = moa.at %[[A]][%[[I]], %[[K]]]
// CHECK-NEXT:      %[[Y:.*]] = moa.at %[[B]][%[[K]], %[[J]]]
// CHECK-NEXT:      %[[XY:.*]] = arith.mulf %[[X]], %[[Y]] : f64
// CHECK-NEXT:      moa.yield %[[XY]] : f64
// CHECK:         moa.yield %[[SUM]] : f64

// A matrix times a vector: j is empty.
// CHECK-LABEL: func.func @psi_of_inner_of_matrix_and_vector(
// CHECK-SAME:    %[[A:.*]]: tensor<3x4xf64>, %[[X:.*]]: tensor<4xf64>)
func.func @psi_of_inner_of_matrix_and_vector(%a: tensor<3x4xf64>, %x: tensor<4xf64>) -> tensor<3xf64> {
  %y = moa.inner add mul %a, %x : tensor<3x4xf64>, tensor<4xf64> -> tensor<3xf64>
  func.return %y : tensor<3xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<3xf64>
// CHECK-NEXT:    moa.fold add [%[[K:.*]] = %{{.*}} to %{{.*}}] -> f64
// CHECK-NEXT:      moa.at %[[A]][%[[I]], %[[K]]]
// CHECK-NEXT:      moa.at %[[X]][%[[K]]]

// Two vectors give a scalar: i and j are empty.
// CHECK-LABEL: func.func @psi_of_inner_of_vectors(
// CHECK-SAME:    %[[X:.*]]: tensor<4xf64>, %[[Y:.*]]: tensor<4xf64>)
func.func @psi_of_inner_of_vectors(%x: tensor<4xf64>, %y: tensor<4xf64>) -> tensor<f64> {
  %z = moa.inner add mul %x, %y : tensor<4xf64>, tensor<4xf64> -> tensor<f64>
  func.return %z : tensor<f64>
}
// CHECK:       moa.comprehension [] -> tensor<f64>
// CHECK-NEXT:    moa.fold add [%[[K:.*]] = %{{.*}} to %{{.*}}] -> f64
// CHECK-NEXT:      moa.at %[[X]][%[[K]]]
// CHECK-NEXT:      moa.at %[[Y]][%[[K]]]

// Q +•× ⊘K: the transposed matrix disappears, its index is swapped.
// CHECK-LABEL: func.func @psi_of_inner_with_a_transposed_matrix(
// CHECK-SAME:    %[[Q:.*]]: tensor<3x4xf64>, %[[K:.*]]: tensor<5x4xf64>)
func.func @psi_of_inner_with_a_transposed_matrix(%q: tensor<3x4xf64>, %k: tensor<5x4xf64>) -> tensor<3x5xf64> {
  %kt = moa.transpose %k : tensor<5x4xf64> -> tensor<4x5xf64>
  %s = moa.inner add mul %q, %kt : tensor<3x4xf64>, tensor<4x5xf64> -> tensor<3x5xf64>
  func.return %s : tensor<3x5xf64>
}
// CHECK-NOT:   moa.transpose
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] -> tensor<3x5xf64>
// CHECK-NEXT:    moa.fold add [%[[C:.*]] = %{{.*}} to %{{.*}}] -> f64
// CHECK-NEXT:      moa.at %[[Q]][%[[I]], %[[C]]]
// CHECK-NEXT:      moa.at %[[K]][%[[J]], %[[C]]]
