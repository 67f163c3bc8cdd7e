// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// (i ++ j) ψ (A •f B) = (i ψ A) f (j ψ B), the length of i the rank of A

// CHECK-LABEL: func.func @psi_of_outer(
// CHECK-SAME:    %[[A:.*]]: tensor<2x3xf64>, %[[B:.*]]: tensor<4xf64>)
func.func @psi_of_outer(%a: tensor<2x3xf64>, %b: tensor<4xf64>) -> tensor<2x3x4xf64> {
  %c = moa.outer mul %a, %b : tensor<2x3xf64>, tensor<4xf64> -> tensor<2x3x4xf64>
  func.return %c : tensor<2x3x4xf64>
}
// CHECK:       moa.comprehension [%[[I0:.*]] < %{{.*}}, %[[I1:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] ->
// CHECK-NEXT:    %[[X:.*]] = moa.at %[[A]][%[[I0]], %[[I1]]]
// CHECK-NEXT:    %[[Y:.*]] = moa.at %[[B]][%[[J]]]
// CHECK-NEXT:    arith.mulf %[[X]], %[[Y]] : f64

// With a scalar on the right j is empty, ...
// CHECK-LABEL: func.func @psi_of_outer_with_a_scalar_right(
// CHECK-SAME:    %[[A:.*]]: tensor<3xf64>, %[[S:.*]]: tensor<f64>)
func.func @psi_of_outer_with_a_scalar_right(%a: tensor<3xf64>, %s: tensor<f64>) -> tensor<3xf64> {
  %c = moa.outer sub %a, %s : tensor<3xf64>, tensor<f64> -> tensor<3xf64>
  func.return %c : tensor<3xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<3xf64>
// CHECK-NEXT:    %[[X:.*]] = moa.at %[[A]][%[[I]]]
// CHECK-NEXT:    %[[Y:.*]] = moa.at %[[S]][]
// CHECK-NEXT:    arith.subf %[[X]], %[[Y]] : f64

// ... on the left i.
// CHECK-LABEL: func.func @psi_of_outer_with_a_scalar_left(
// CHECK-SAME:    %[[S:.*]]: tensor<f64>, %[[B:.*]]: tensor<3xf64>)
func.func @psi_of_outer_with_a_scalar_left(%s: tensor<f64>, %b: tensor<3xf64>) -> tensor<3xf64> {
  %c = moa.outer sub %s, %b : tensor<f64>, tensor<3xf64> -> tensor<3xf64>
  func.return %c : tensor<3xf64>
}
// CHECK:       moa.comprehension [%[[J:.*]] < %{{.*}}] -> tensor<3xf64>
// CHECK-NEXT:    %[[X:.*]] = moa.at %[[S]][]
// CHECK-NEXT:    %[[Y:.*]] = moa.at %[[B]][%[[J]]]
// CHECK-NEXT:    arith.subf %[[X]], %[[Y]] : f64
