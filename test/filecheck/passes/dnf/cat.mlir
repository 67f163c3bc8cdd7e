// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ (A ++ B) = i ψ A if i0 < a0, else (<i0 - a0> ++ (1 ▽ i)) ψ B

// Only the side that is chosen is read: the other may not have such an element.
// CHECK-LABEL: func.func @psi_of_cat(
// CHECK-SAME:    %[[A:.*]]: tensor<?x3xf64>, %[[B:.*]]: tensor<?x3xf64>)
func.func @psi_of_cat(%a: tensor<?x3xf64>, %b: tensor<?x3xf64>) -> tensor<?x3xf64> {
  %c = moa.cat %a, %b : tensor<?x3xf64>, tensor<?x3xf64> -> tensor<?x3xf64>
  func.return %c : tensor<?x3xf64>
}
// CHECK:       %[[N:.*]] = moa.extent %[[A]], 0
// CHECK:       %[[M:.*]] = moa.extent %[[B]], 0
// CHECK:       %[[BOTH:.*]] = arith.addi %[[N]], %[[M]] : index
// CHECK:       moa.comprehension [%[[I:.*]] < %[[BOTH]], %[[J:.*]] < %{{.*}}] -> tensor<?x3xf64>
// CHECK-NEXT:    %[[LEFT:.*]] = arith.cmpi slt, %[[I]], %[[N]] : index
// CHECK-NEXT:    %[[X:.*]] = scf.if %[[LEFT]] -> (f64) {
// CHECK-NEXT:      %[[OF_A:.*]] = moa.at %[[A]][%[[I]], %[[J]]]
// CHECK-NEXT:      scf.yield %[[OF_A]] : f64
// CHECK-NEXT:    } else {
// CHECK-NEXT:      %[[MOVED:.*]] = arith.subi %[[I]], %[[N]] : index
// CHECK-NEXT:      %[[OF_B:.*]] = moa.at %[[B]][%[[MOVED]], %[[J]]]
// CHECK-NEXT:      scf.yield %[[OF_B]] : f64
// CHECK:         moa.yield %[[X]] : f64

// A scalar beside an array is one plane of it.
// CHECK-LABEL: func.func @psi_of_cat_with_a_scalar(
// CHECK-SAME:    %[[S:.*]]: tensor<f64>, %[[B:.*]]: tensor<2x3xf64>)
func.func @psi_of_cat_with_a_scalar(%s: tensor<f64>, %b: tensor<2x3xf64>) -> tensor<3x3xf64> {
  %c = moa.cat %s, %b : tensor<f64>, tensor<2x3xf64> -> tensor<3x3xf64>
  func.return %c : tensor<3x3xf64>
}
// CHECK:       %[[ONE:.*]] = arith.constant 1 : index
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] -> tensor<3x3xf64>
// CHECK-NEXT:    arith.cmpi slt, %[[I]], %[[ONE]] : index
// CHECK:           moa.at %[[S]][]
// CHECK:           %[[MOVED:.*]] = arith.subi %[[I]], %[[ONE]] : index
// CHECK-NEXT:      moa.at %[[B]][%[[MOVED]], %[[J]]]
