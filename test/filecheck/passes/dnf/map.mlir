// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ (f A) = f (i ψ A)

// CHECK-LABEL: func.func @psi_of_map(
// CHECK-SAME:    %[[A:.*]]: tensor<3x4xf64>)
func.func @psi_of_map(%a: tensor<3x4xf64>) -> tensor<3x4xf64> {
  %b = moa.map exp %a : tensor<3x4xf64> -> tensor<3x4xf64>
  func.return %b : tensor<3x4xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] ->
// CHECK-NEXT:    %[[X:.*]] = moa.at %[[A]][%[[I]], %[[J]]]
// CHECK-NEXT:    %[[Y:.*]] = math.exp %[[X]] : f64
// CHECK-NEXT:    moa.yield %[[Y]] : f64
