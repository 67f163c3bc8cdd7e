// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ ΦA = (<s0 - 1 - i0> ++ (1 ▽ i)) ψ A

// CHECK-LABEL: func.func @psi_of_reverse(
// CHECK-SAME:    %[[A:.*]]: tensor<?x5xf64>)
func.func @psi_of_reverse(%a: tensor<?x5xf64>) -> tensor<?x5xf64> {
  %b = moa.reverse %a : tensor<?x5xf64> -> tensor<?x5xf64>
  func.return %b : tensor<?x5xf64>
}
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[ONE:.*]] = arith.constant 1 : index
// CHECK:       moa.comprehension [%[[I:.*]] < %[[N]], %[[J:.*]] < %{{.*}}] -> tensor<?x5xf64>
// CHECK-NEXT:    %[[LAST:.*]] = arith.subi %[[N]], %[[ONE]] : index
// CHECK-NEXT:    %[[K:.*]] = arith.subi %[[LAST]], %[[I]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[K]], %[[J]]]

// A scalar stays as it is.
// CHECK-LABEL: func.func @psi_of_reverse_of_a_scalar(
// CHECK-SAME:    %[[A:.*]]: tensor<f64>)
func.func @psi_of_reverse_of_a_scalar(%a: tensor<f64>) -> tensor<f64> {
  %b = moa.reverse %a : tensor<f64> -> tensor<f64>
  func.return %b : tensor<f64>
}
// CHECK:       moa.comprehension [] -> tensor<f64>
// CHECK-NEXT:    moa.at %[[A]][]

// The axis is the first one of what is reversed: here the last one of A.
// CHECK-LABEL: func.func @psi_of_reverse_of_transpose(
// CHECK-SAME:    %[[A:.*]]: tensor<4x5xf64>)
func.func @psi_of_reverse_of_transpose(%a: tensor<4x5xf64>) -> tensor<5x4xf64> {
  %t = moa.transpose %a : tensor<4x5xf64> -> tensor<5x4xf64>
  %b = moa.reverse %t : tensor<5x4xf64> -> tensor<5x4xf64>
  func.return %b : tensor<5x4xf64>
}
// CHECK:       %[[M:.*]] = moa.extent %[[A]], 1
// CHECK:       moa.comprehension [%[[I:.*]] < %[[M]], %[[J:.*]] < %{{.*}}] -> tensor<5x4xf64>
// CHECK-NEXT:    %[[LAST:.*]] = arith.subi %[[M]], %{{.*}} : index
// CHECK-NEXT:    %[[K:.*]] = arith.subi %[[LAST]], %[[I]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[J]], %[[K]]]
