// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ (v ⍀ A) = (<n> ++ (1 ▽ i)) ψ A if v holds at i0, n the ones before; else 0

// CHECK-LABEL: func.func @psi_of_expand(
// CHECK-SAME:    %[[V:.*]]: tensor<4xi1>, %[[A:.*]]: tensor<2x6xf64>)
func.func @psi_of_expand(%v: tensor<4xi1>, %a: tensor<2x6xf64>) -> tensor<4x6xf64> {
  %b = moa.expand %v, %a : tensor<4xi1>, tensor<2x6xf64> -> tensor<4x6xf64>
  func.return %b : tensor<4x6xf64>
}
// CHECK:       %[[ONES:.*]] = moa.fold add
// CHECK:       %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-NEXT:  moa.require %[[ONES]] eq %[[N]], "expand: the mask must hold as often as axis 0 is long"
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] -> tensor<4x6xf64>
// CHECK-NEXT:    %[[HOLDS:.*]] = moa.at %[[V]][%[[I]]]
// CHECK-NEXT:    scf.if %[[HOLDS]] -> (f64) {
// CHECK-NEXT:      %[[BEFORE:.*]] = moa.fold add [%[[K:.*]] = %{{.*}} to %[[I]]] -> index
// CHECK-NEXT:        moa.at %[[V]][%[[K]]]
// CHECK:           %[[X:.*]] = moa.at %[[A]][%[[BEFORE]], %[[J]]]
// CHECK-NEXT:      scf.yield %[[X]] : f64
// CHECK-NEXT:    } else {
// CHECK-NEXT:      %[[ZERO:.*]] = arith.constant 0.000000e+00 : f64
// CHECK-NEXT:      scf.yield %[[ZERO]] : f64
