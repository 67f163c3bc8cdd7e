// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ where(C, A, B) = where(i ψ C, i ψ A, i ψ B)

// CHECK-LABEL: func.func @psi_of_where(
// CHECK-SAME:    %[[C:.*]]: tensor<3xi1>, %[[A:.*]]: tensor<3xf64>, %[[B:.*]]: tensor<f64>)
func.func @psi_of_where(%c: tensor<3xi1>, %a: tensor<3xf64>, %b: tensor<f64>) -> tensor<3xf64> {
  %d = moa.where %c, %a, %b : tensor<3xi1>, tensor<3xf64>, tensor<f64> -> tensor<3xf64>
  func.return %d : tensor<3xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<3xf64>
// CHECK-NEXT:    %[[HOLDS:.*]] = moa.at %[[C]][%[[I]]]
// CHECK-NEXT:    %[[X:.*]] = moa.at %[[A]][%[[I]]]
// CHECK-NEXT:    %[[Y:.*]] = moa.at %[[B]][]
// CHECK-NEXT:    arith.select %[[HOLDS]], %[[X]], %[[Y]] : f64
