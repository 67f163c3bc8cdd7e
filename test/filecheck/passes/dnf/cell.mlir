// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// j ψ (i ψ A) = (i ++ j) ψ A for a partial index i of scalars

// CHECK-LABEL: func.func @psi_of_cell(
// CHECK-SAME:    %[[A:.*]]: tensor<3x4x5xf64>, %[[I0:.*]]: index, %[[I1:.*]]: index)
func.func @psi_of_cell(%a: tensor<3x4x5xf64>, %i0: index, %i1: index) -> tensor<5xf64> {
  %row = moa.cell %a[%i0, %i1] : tensor<3x4x5xf64> -> tensor<5xf64>
  func.return %row : tensor<5xf64>
}
// CHECK:       moa.comprehension [%[[J:.*]] < %{{.*}}] -> tensor<5xf64>
// CHECK-NEXT:    moa.at %[[A]][%[[I0]], %[[I1]], %[[J]]]
