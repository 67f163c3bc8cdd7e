// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ (kθA) = (<(i0 + k) mod s0> ++ (1 ▽ i)) ψ A

// The count modulo the extent, the shift, is computed once. An index wraps where it is
// at least the extent less the shift: no division at an element.
// CHECK-LABEL: func.func @psi_of_rotate_by_data(
// CHECK-SAME:    %[[K:.*]]: tensor<index>, %[[A:.*]]: tensor<?x5xf64>)
func.func @psi_of_rotate_by_data(%k: tensor<index>, %a: tensor<?x5xf64>) -> tensor<?x5xf64> {
  %b = moa.rotate %k, %a : tensor<index>, tensor<?x5xf64> -> tensor<?x5xf64>
  func.return %b : tensor<?x5xf64>
}
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[COUNT:.*]] = moa.at %[[K]][] : tensor<index>
// An empty axis is not divided by.
// CHECK-DAG:   %[[ONE:.*]] = arith.constant 1 : index
// CHECK:       %[[EMPTY:.*]] = arith.cmpi slt, %[[N]], %[[ONE]] : index
// CHECK-NEXT:  %[[DIVISOR:.*]] = arith.select %[[EMPTY]], %[[ONE]], %[[N]] : index
// CHECK:       arith.remui %{{.*}}, %[[DIVISOR]] : index
// CHECK:       %[[LESS:.*]] = arith.remui %{{.*}}, %[[DIVISOR]] : index
// CHECK:       %[[NEGATIVE:.*]] = arith.cmpi slt, %{{.*}}, %[[LESS]] : index
// CHECK-NEXT:  %[[SHIFT:.*]] = arith.select %[[NEGATIVE]]
// CHECK-NEXT:  moa.comprehension [%[[I:.*]] < %[[N]], %[[J:.*]] < %{{.*}}] -> tensor<?x5xf64>
// CHECK-NOT:     arith.remui
// CHECK:         %[[WRAP:.*]] = arith.subi %[[N]], %[[SHIFT]] : index
// CHECK-NEXT:    %[[FURTHER:.*]] = arith.addi %[[I]], %[[SHIFT]] : index
// CHECK-NEXT:    %[[BACK:.*]] = arith.subi %[[I]], %[[WRAP]] : index
// CHECK-NEXT:    %[[BEFORE:.*]] = arith.cmpi slt, %[[I]], %[[WRAP]] : index
// CHECK-NEXT:    %[[L:.*]] = arith.select %[[BEFORE]], %[[FURTHER]], %[[BACK]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[L]], %[[J]]]

// Any constant is a count, also one beyond the extent.
// CHECK-LABEL: func.func @psi_of_rotate_by_a_constant(
// CHECK-SAME:    %[[A:.*]]: tensor<5xf64>)
func.func @psi_of_rotate_by_a_constant(%a: tensor<5xf64>) -> tensor<5xf64> {
  %k = moa.constant dense<-7> : tensor<index>
  %b = moa.rotate %k, %a : tensor<index>, tensor<5xf64> -> tensor<5xf64>
  func.return %b : tensor<5xf64>
}
// CHECK-NOT:   moa.require
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<5xf64>
// CHECK-NOT:     arith.remui
// CHECK:         %[[BEFORE:.*]] = arith.cmpi slt, %[[I]], %{{.*}} : index
// CHECK-NEXT:    %[[L:.*]] = arith.select %[[BEFORE]]
// CHECK-NEXT:    moa.at %[[A]][%[[L]]]
