// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ recycle(t, A) = γ'(γ(i; t) mod τA; ρA) ψ A

// What is required: A has elements if the result has. The divisor is at least 1.
// CHECK-LABEL: func.func @psi_of_recycle(
// CHECK-SAME:    %[[A:.*]]: tensor<?xf64>)
func.func @psi_of_recycle(%a: tensor<?xf64>) -> tensor<3x4xf64> {
  %t = moa.constant dense<[3, 4]> : tensor<2xindex>
  %b = moa.recycle %t, %a : tensor<2xindex>, tensor<?xf64> -> tensor<3x4xf64>
  func.return %b : tensor<3x4xf64>
}
// CHECK:       %[[ONE:.*]] = arith.constant 1 : index
// CHECK:       %[[N:.*]] = moa.extent %[[A]], 0
// CHECK:       moa.require %{{.*}} ge %{{.*}}, "recycle: an array without elements has none to repeat"
// CHECK:       %[[FOUR:.*]] = moa.fixed_extent 4
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %[[FOUR]]] -> tensor<3x4xf64>
// CHECK-NEXT:    %[[START:.*]] = arith.muli %[[I]], %[[FOUR]] : index
// CHECK-NEXT:    %[[ADDRESS:.*]] = arith.addi %[[START]], %[[J]] : index
// CHECK:         %[[SIZE:.*]] = arith.select %{{.*}}, %[[ONE]], %[[N]] : index
// CHECK-NEXT:    %[[K:.*]] = arith.remui %[[ADDRESS]], %[[SIZE]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[K]]]

// Trailing axes of A's total run through A once: nothing is divided.
// CHECK-LABEL: func.func @psi_of_recycle_of_a_row(
// CHECK-SAME:    %[[A:.*]]: tensor<4xf64>)
func.func @psi_of_recycle_of_a_row(%a: tensor<4xf64>) -> tensor<3x4xf64> {
  %t = moa.constant dense<[3, 4]> : tensor<2xindex>
  %b = moa.recycle %t, %a : tensor<2xindex>, tensor<4xf64> -> tensor<3x4xf64>
  func.return %b : tensor<3x4xf64>
}
// CHECK-NOT:   moa.require
// CHECK:       moa.comprehension [%{{.*}} < %{{.*}}, %[[J:.*]] < %{{.*}}] -> tensor<3x4xf64>
// CHECK-NEXT:    moa.at %[[A]][%[[J]]]

// Of a scalar, every element is that scalar.
// CHECK-LABEL: func.func @psi_of_recycle_of_a_scalar(
// CHECK-SAME:    %[[X:.*]]: tensor<f64>)
func.func @psi_of_recycle_of_a_scalar(%x: tensor<f64>) -> tensor<3xf64> {
  %t = moa.constant dense<3> : tensor<1xindex>
  %b = moa.recycle %t, %x : tensor<1xindex>, tensor<f64> -> tensor<3xf64>
  func.return %b : tensor<3xf64>
}
// CHECK:       moa.comprehension
// CHECK-NEXT:    moa.at %[[X]][]
