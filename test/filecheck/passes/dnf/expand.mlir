// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ (v ⍀ A) = (<n> ++ (1 ▽ i)) ψ A if v holds at i0, n the ones before, else 0

// CHECK-LABEL: func.func @psi_of_expand(
// CHECK-SAME:    %[[A:.*]]: tensor<2x5xf64>)
func.func @psi_of_expand(%a: tensor<2x5xf64>) -> tensor<4x5xf64> {
  %v = moa.constant dense<[true, false, false, true]> : tensor<4xi1>
  %r = moa.expand %v, %a : tensor<4xi1>, tensor<2x5xf64> -> tensor<4x5xf64>
  func.return %r : tensor<4x5xf64>
}
// CHECK-DAG:   %[[BEFORE:.*]] = moa.constant dense<[0, 1, 1, 1]> : tensor<4xindex>
// CHECK-DAG:   %[[V:.*]] = moa.constant dense<[true, false, false, true]> : tensor<4xi1>
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] -> tensor<4x5xf64>
// CHECK-NEXT:    %[[HOLDS:.*]] = moa.at %[[V]][%[[I]]]
// CHECK-NEXT:    scf.if %[[HOLDS]] -> (f64) {
// CHECK-NEXT:      %[[N:.*]] = moa.at %[[BEFORE]][%[[I]]]
// CHECK-NEXT:      moa.at %[[A]][%[[N]], %[[J]]]
// CHECK:         } else {
// CHECK-NEXT:      %[[FILL:.*]] = arith.constant 0.000000e+00 : f64
// CHECK-NEXT:      scf.yield %[[FILL]] : f64

// CHECK-LABEL: func.func @psi_of_expand_by_data(
// CHECK-SAME:    %[[V:.*]]: tensor<?xi1>, %[[A:.*]]: tensor<?xi64>)
func.func @psi_of_expand_by_data(%v: tensor<?xi1>, %a: tensor<?xi64>) -> tensor<?xi64> {
  %r = moa.expand %v, %a : tensor<?xi1>, tensor<?xi64> -> tensor<?xi64>
  func.return %r : tensor<?xi64>
}
// CHECK:       %[[COUNT:.*]] = moa.fold add
// CHECK:       %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-NEXT:  moa.require %[[COUNT]] eq %[[N]], "expand: the mask must hold as often as axis 0 is long: expected {expected} (axis 0 of a), got {given} (the number of true elements of v)"
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<?xi64>
// CHECK-NEXT:    %[[HOLDS:.*]] = moa.at %[[V]][%[[I]]]
// CHECK-NEXT:    scf.if %[[HOLDS]] -> (i64) {
// CHECK-NEXT:      %[[BEFORE:.*]] = moa.fold add [%[[P:.*]] = %{{.*}} to %[[I]]] -> index
// CHECK-NEXT:        moa.at %[[V]][%[[P]]]
// CHECK:           moa.at %[[A]][%[[BEFORE]]]
// CHECK:         } else {
// CHECK-NEXT:      arith.constant 0 : i64
