// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ ΦA = (<s0 - 1 - i0> ++ (1 ▽ i)) ψ A

// CHECK-LABEL: func.func @psi_of_reverse(
// CHECK-SAME:    %[[A:.*]]: tensor<?x3xf64>)
func.func @psi_of_reverse(%a: tensor<?x3xf64>) -> tensor<?x3xf64> {
  %b = moa.reverse %a : tensor<?x3xf64> -> tensor<?x3xf64>
  func.return %b : tensor<?x3xf64>
}
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[ONE:.*]] = arith.constant 1 : index
// CHECK:       moa.comprehension [%[[I:.*]] < %[[N]], %[[J:.*]] < %{{.*}}] -> tensor<?x3xf64>
// CHECK-NEXT:    %[[LAST:.*]] = arith.subi %[[N]], %[[ONE]] : index
// CHECK-NEXT:    %[[MOVED:.*]] = arith.subi %[[LAST]], %[[I]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[MOVED]], %[[J]]]

// Of a scalar, the scalar.
// CHECK-LABEL: func.func @psi_of_reverse_of_a_scalar(
// CHECK-SAME:    %[[A:.*]]: tensor<f64>)
func.func @psi_of_reverse_of_a_scalar(%a: tensor<f64>) -> tensor<f64> {
  %b = moa.reverse %a : tensor<f64> -> tensor<f64>
  func.return %b : tensor<f64>
}
// CHECK:       moa.comprehension [] -> tensor<f64>
// CHECK-NEXT:    moa.at %[[A]][]
