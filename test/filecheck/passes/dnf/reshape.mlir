// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ (t ρ̂ A) = γ'(γ(i; t); ρA) ψ A

// CHECK-LABEL: func.func @psi_of_reshape(
// CHECK-SAME:    %[[A:.*]]: tensor<4x6xf64>)
func.func @psi_of_reshape(%a: tensor<4x6xf64>) -> tensor<3x8xf64> {
  %t = moa.constant dense<[3, 8]> : tensor<2xindex>
  %b = moa.reshape %t, %a : tensor<2xindex>, tensor<4x6xf64> -> tensor<3x8xf64>
  func.return %b : tensor<3x8xf64>
}
// CHECK-DAG:   %[[S1:.*]] = moa.extent %[[A]], 1
// CHECK-DAG:   %[[T1:.*]] = moa.fixed_extent 8
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %[[T1]]] -> tensor<3x8xf64>
// CHECK-NEXT:    %[[ROWS:.*]] = arith.muli %[[I]], %[[T1]] : index
// CHECK-NEXT:    %[[ADDRESS:.*]] = arith.addi %[[ROWS]], %[[J]] : index
// CHECK-NEXT:    %[[COLUMN:.*]] = arith.remui %[[ADDRESS]], %[[S1]] : index
// CHECK-NEXT:    %[[ROW:.*]] = arith.divui %[[ADDRESS]], %[[S1]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[ROW]], %[[COLUMN]]]

// Only axes that are split or merged are computed: here the first two become one.
// CHECK-LABEL: func.func @psi_of_reshape_that_merges_axes(
// CHECK-SAME:    %[[A:.*]]: tensor<12x5xf64>)
func.func @psi_of_reshape_that_merges_axes(%a: tensor<12x5xf64>) -> tensor<3x4x5xf64> {
  %t = moa.constant dense<[3, 4, 5]> : tensor<3xindex>
  %b = moa.reshape %t, %a : tensor<3xindex>, tensor<12x5xf64> -> tensor<3x4x5xf64>
  func.return %b : tensor<3x4x5xf64>
}
// CHECK:       %[[FOUR:.*]] = moa.fixed_extent 4
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}, %[[K:.*]] < %{{.*}}] -> tensor<3x4x5xf64>
// CHECK-NEXT:    %[[PLANES:.*]] = arith.muli %[[I]], %[[FOUR]] : index
// CHECK-NEXT:    %[[ROW:.*]] = arith.addi %[[PLANES]], %[[J]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[ROW]], %[[K]]]

// The number of elements is checked at the entry if types do not give it.
// CHECK-LABEL: func.func @psi_of_reshape_of_data(
// CHECK-SAME:    %[[T:.*]]: tensor<2xindex>, %[[A:.*]]: tensor<?xf64>)
func.func @psi_of_reshape_of_data(%t: tensor<2xindex>, %a: tensor<?xf64>) -> tensor<?x?xf64> {
  %b = moa.reshape %t, %a : tensor<2xindex>, tensor<?xf64> -> tensor<?x?xf64>
  func.return %b : tensor<?x?xf64>
}
// CHECK:       %[[T0:.*]] = moa.at %[[T]][%{{.*}}]
// CHECK:       moa.require %[[T0]] ge %{{.*}}, "reshape: an extent must not be negative"
// CHECK:       %[[T1:.*]] = moa.at %[[T]][%{{.*}}]
// CHECK:       moa.require %[[T1]] ge %{{.*}}, "reshape: an extent must not be negative"
// CHECK:       %[[TOTAL:.*]] = arith.muli %[[T0]], %[[T1]] : index
// CHECK:       %[[N:.*]] = moa.extent %[[A]], 0
// CHECK:       moa.require %[[TOTAL]] eq %[[N]], "reshape: the number of elements must stay"
// CHECK:       moa.comprehension [%{{.*}} < %[[T0]], %{{.*}} < %[[T1]]] -> tensor<?x?xf64>
