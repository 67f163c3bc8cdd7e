// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ (A f B) = (i ψ A) f (i ψ B) for a scalar function f of the program: f is inlined.

// CHECK-LABEL: func.func @psi_of_a_scalar_function(
// CHECK-SAME:    %[[A:.*]]: tensor<3xf64>, %[[B:.*]]: tensor<3xf64>)
func.func @psi_of_a_scalar_function(%a: tensor<3xf64>, %b: tensor<3xf64>) -> tensor<3xf64> {
  %c = moa.pointwise @midpoint %a, %b : tensor<3xf64>, tensor<3xf64> -> tensor<3xf64>
  func.return %c : tensor<3xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<3xf64>
// CHECK-NEXT:    %[[X:.*]] = moa.at %[[A]][%[[I]]]
// CHECK-NEXT:    %[[Y:.*]] = moa.at %[[B]][%[[I]]]
// CHECK-NEXT:    %[[SUM:.*]] = arith.addf %[[X]], %[[Y]] : f64
// CHECK-NEXT:    %[[HALF:.*]] = arith.constant 5.000000e-01 : f64
// CHECK-NEXT:    %[[MIDDLE:.*]] = arith.mulf %[[SUM]], %[[HALF]] : f64
// CHECK-NEXT:    moa.yield %[[MIDDLE]] : f64

// CHECK-NOT:   @midpoint
func.func private @midpoint(%x: f64, %y: f64) -> f64 {
  %sum = arith.addf %x, %y : f64
  %half = arith.constant 0.5 : f64
  %middle = arith.mulf %sum, %half : f64
  func.return %middle : f64
}
