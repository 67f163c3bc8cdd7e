// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// (i ++ j) ψ (P ψ A) = ((i ψ P) ++ j) ψ A

// A constant index is checked with the extents, once, not at each element.
// CHECK-LABEL: func.func @psi_of_psi_with_a_constant_index(
// CHECK-SAME:    %[[A:.*]]: tensor<?x4xf64>)
func.func @psi_of_psi_with_a_constant_index(%a: tensor<?x4xf64>) -> tensor<4xf64> {
  %i = moa.constant dense<2> : tensor<1xindex>
  %row = moa.psi %i, %a : tensor<1xindex>, tensor<?x4xf64> -> tensor<4xf64>
  func.return %row : tensor<4xf64>
}
// CHECK:       %[[ENTRY:.*]] = moa.fixed_extent 2
// CHECK-NEXT:  %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-NEXT:  moa.require %[[ENTRY]] lt %[[N]], "psi: index entry 0 out of range of axis 0: expected less than {expected} (axis 0 of a), got {given}"
// CHECK:       moa.comprehension [%[[J:.*]] < %{{.*}}] -> tensor<4xf64>
// CHECK-NOT:     moa.in_bounds
// CHECK:         %[[TWO:.*]] = arith.constant 2 : index
// CHECK-NEXT:    moa.at %[[A]][%[[TWO]], %[[J]]]

// An index from data is checked where it is used.
// CHECK-LABEL: func.func @psi_of_psi_with_an_index_from_data(
// CHECK-SAME:    %[[P:.*]]: tensor<1xi32>, %[[A:.*]]: tensor<3x4xf64>)
func.func @psi_of_psi_with_an_index_from_data(%p: tensor<1xi32>, %a: tensor<3x4xf64>) -> tensor<4xf64> {
  %row = moa.psi %p, %a : tensor<1xi32>, tensor<3x4xf64> -> tensor<4xf64>
  func.return %row : tensor<4xf64>
}
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[ZERO:.*]] = arith.constant 0 : index
// CHECK:       moa.comprehension [%[[J:.*]] < %{{.*}}] -> tensor<4xf64>
// CHECK-NEXT:    %[[ENTRY:.*]] = moa.at %[[P]][%[[ZERO]]]
// CHECK-NEXT:    %[[WIDE:.*]] = arith.extsi %[[ENTRY]] : i32 to i64
// CHECK-NEXT:    %[[INDEX:.*]] = arith.index_cast %[[WIDE]] : i64 to index
// CHECK-NEXT:    %[[I:.*]] = moa.in_bounds %[[INDEX]] in %[[N]], "psi: index entry 0 out of range of axis 0"
// CHECK-NEXT:    moa.at %[[A]][%[[I]], %[[J]]]

// Each row of an array of indices is an index: i chooses the row, j the element.
// CHECK-LABEL: func.func @psi_of_psi_with_an_array_of_indices(
// CHECK-SAME:    %[[P:.*]]: tensor<5x2xindex>, %[[A:.*]]: tensor<3x4x6xf64>)
func.func @psi_of_psi_with_an_array_of_indices(%p: tensor<5x2xindex>, %a: tensor<3x4x6xf64>) -> tensor<5x6xf64> {
  %b = moa.psi %p, %a : tensor<5x2xindex>, tensor<3x4x6xf64> -> tensor<5x6xf64>
  func.return %b : tensor<5x6xf64>
}
// CHECK-DAG:   %[[ZERO:.*]] = arith.constant 0 : index
// CHECK-DAG:   %[[ONE:.*]] = arith.constant 1 : index
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] -> tensor<5x6xf64>
// CHECK:         %[[P0:.*]] = moa.at %[[P]][%[[I]], %[[ZERO]]]
// CHECK:         %[[CHECKED0:.*]] = moa.in_bounds %[[P0]] in
// CHECK:         %[[P1:.*]] = moa.at %[[P]][%[[I]], %[[ONE]]]
// CHECK:         %[[CHECKED1:.*]] = moa.in_bounds %[[P1]] in
// CHECK:         moa.at %[[A]][%[[CHECKED0]], %[[CHECKED1]], %[[J]]]

// Θ ψ A = A
// CHECK-LABEL: func.func @psi_of_psi_with_the_empty_index(
// CHECK-SAME:    %[[A:.*]]: tensor<3x4xf64>)
func.func @psi_of_psi_with_the_empty_index(%a: tensor<3x4xf64>) -> tensor<3x4xf64> {
  %theta = moa.constant dense<> : tensor<0xindex>
  %b = moa.psi %theta, %a : tensor<0xindex>, tensor<3x4xf64> -> tensor<3x4xf64>
  func.return %b : tensor<3x4xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] ->
// CHECK-NEXT:    moa.at %[[A]][%[[I]], %[[J]]]

// j ψ (i ψ A) = (i ++ j) ψ A
// CHECK-LABEL: func.func @psi_of_psi_of_psi(
// CHECK-SAME:    %[[A:.*]]: tensor<3x4x5xf64>)
func.func @psi_of_psi_of_psi(%a: tensor<3x4x5xf64>) -> tensor<5xf64> {
  %i = moa.constant dense<2> : tensor<1xindex>
  %j = moa.constant dense<1> : tensor<1xindex>
  %plane = moa.psi %i, %a : tensor<1xindex>, tensor<3x4x5xf64> -> tensor<4x5xf64>
  %row = moa.psi %j, %plane : tensor<1xindex>, tensor<4x5xf64> -> tensor<5xf64>
  func.return %row : tensor<5xf64>
}
// CHECK:       moa.comprehension [%[[K:.*]] < %{{.*}}] -> tensor<5xf64>
// CHECK-DAG:     %[[TWO:.*]] = arith.constant 2 : index
// CHECK-DAG:     %[[ONE:.*]] = arith.constant 1 : index
// CHECK:         moa.at %[[A]][%[[TWO]], %[[ONE]], %[[K]]]
