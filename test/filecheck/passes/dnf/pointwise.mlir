// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ (A f B) = (i ψ A) f (i ψ B)

// CHECK-LABEL: func.func @psi_of_pointwise(
// CHECK-SAME:    %[[A:.*]]: tensor<3x4xf64>, %[[B:.*]]: tensor<3x4xf64>)
func.func @psi_of_pointwise(%a: tensor<3x4xf64>, %b: tensor<3x4xf64>) -> tensor<3x4xf64> {
  %c = moa.pointwise sub %a, %b : tensor<3x4xf64>, tensor<3x4xf64> -> tensor<3x4xf64>
  func.return %c : tensor<3x4xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] ->
// CHECK-NEXT:    %[[X:.*]] = moa.at %[[A]][%[[I]], %[[J]]]
// CHECK-NEXT:    %[[Y:.*]] = moa.at %[[B]][%[[I]], %[[J]]]
// CHECK-NEXT:    %[[Z:.*]] = arith.subf %[[X]], %[[Y]] : f64
// CHECK-NEXT:    moa.yield %[[Z]] : f64

// i ψ (σ f A) = σ f (i ψ A) for a scalar σ
// CHECK-LABEL: func.func @psi_of_scalar_extension(
// CHECK-SAME:    %[[S:.*]]: tensor<f64>, %[[A:.*]]: tensor<3xf64>)
func.func @psi_of_scalar_extension(%s: tensor<f64>, %a: tensor<3xf64>) -> tensor<3xf64> {
  %c = moa.pointwise div %s, %a : tensor<f64>, tensor<3xf64> -> tensor<3xf64>
  func.return %c : tensor<3xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<3xf64>
// CHECK-NEXT:    %[[X:.*]] = moa.at %[[S]][] : tensor<f64>
// CHECK-NEXT:    %[[Y:.*]] = moa.at %[[A]][%[[I]]]
// CHECK-NEXT:    arith.divf %[[X]], %[[Y]] : f64

// The same element is the same value, however often it is asked for.
// CHECK-LABEL: func.func @psi_of_a_shared_operand(
// CHECK-SAME:    %[[A:.*]]: tensor<3xf64>)
func.func @psi_of_a_shared_operand(%a: tensor<3xf64>) -> tensor<3xf64> {
  %e = moa.map exp %a : tensor<3xf64> -> tensor<3xf64>
  %c = moa.pointwise mul %e, %e : tensor<3xf64>, tensor<3xf64> -> tensor<3xf64>
  func.return %c : tensor<3xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<3xf64>
// CHECK-NEXT:    %[[X:.*]] = moa.at %[[A]][%[[I]]]
// CHECK-NEXT:    %[[E:.*]] = math.exp %[[X]] : f64
// CHECK-NEXT:    arith.mulf %[[E]], %[[E]] : f64
