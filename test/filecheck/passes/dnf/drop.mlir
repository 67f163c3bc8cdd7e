// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ (v ▽ A) = i' ψ A with i'_j = i_j + max(v_j, 0)

// What is dropped in front is skipped.
// CHECK-LABEL: func.func @psi_of_drop(
// CHECK-SAME:    %[[A:.*]]: tensor<?x5xf64>)
func.func @psi_of_drop(%a: tensor<?x5xf64>) -> tensor<?x5xf64> {
  %v = moa.constant dense<2> : tensor<index>
  %b = moa.drop %v, %a : tensor<index>, tensor<?x5xf64> -> tensor<?x5xf64>
  func.return %b : tensor<?x5xf64>
}
// CHECK-DAG:   %[[COUNT:.*]] = moa.fixed_extent 2
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK:       moa.require %[[COUNT]] le %[[N]], "drop: the count for axis 0 must not exceed the extent: expected at most {expected} (axis 0 of a), got {given}"
// CHECK-NEXT:  %[[TWO:.*]] = arith.constant 2 : index
// CHECK-NEXT:  %[[SIZE:.*]] = arith.subi %[[N]], %[[TWO]] : index
// CHECK:       moa.comprehension [%[[I:.*]] < %[[SIZE]], %[[J:.*]] < %{{.*}}] -> tensor<?x5xf64>
// CHECK-NEXT:    %[[K:.*]] = arith.addi %[[I]], %[[TWO]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[K]], %[[J]]]

// What is dropped at the end only makes the result smaller.
// CHECK-LABEL: func.func @psi_of_drop_at_the_end(
// CHECK-SAME:    %[[A:.*]]: tensor<?x5xf64>)
func.func @psi_of_drop_at_the_end(%a: tensor<?x5xf64>) -> tensor<?x5xf64> {
  %v = moa.constant dense<-2> : tensor<index>
  %b = moa.drop %v, %a : tensor<index>, tensor<?x5xf64> -> tensor<?x5xf64>
  func.return %b : tensor<?x5xf64>
}
// CHECK:       %[[SIZE:.*]] = arith.subi
// CHECK:       moa.comprehension [%[[I:.*]] < %[[SIZE]], %[[J:.*]] < %{{.*}}] -> tensor<?x5xf64>
// CHECK-NEXT:    moa.at %[[A]][%[[I]], %[[J]]]

// CHECK-LABEL: func.func @psi_of_drop_by_a_vector(
// CHECK-SAME:    %[[A:.*]]: tensor<4x5x6xf64>)
func.func @psi_of_drop_by_a_vector(%a: tensor<4x5x6xf64>) -> tensor<2x2x6xf64> {
  %v = moa.constant dense<[-2, 3]> : tensor<2xindex>
  %b = moa.drop %v, %a : tensor<2xindex>, tensor<4x5x6xf64> -> tensor<2x2x6xf64>
  func.return %b : tensor<2x2x6xf64>
}
// CHECK:       %[[THREE:.*]] = arith.constant 3 : index
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}, %[[K:.*]] < %{{.*}}] ->
// CHECK-NEXT:    %[[L:.*]] = arith.addi %[[J]], %[[THREE]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[I]], %[[L]], %[[K]]]

// CHECK-LABEL: func.func @psi_of_drop_by_data(
// CHECK-SAME:    %[[V:.*]]: tensor<index>, %[[A:.*]]: tensor<?xf64>)
func.func @psi_of_drop_by_data(%v: tensor<index>, %a: tensor<?xf64>) -> tensor<?xf64> {
  %b = moa.drop %v, %a : tensor<index>, tensor<?xf64> -> tensor<?xf64>
  func.return %b : tensor<?xf64>
}
// CHECK:       %[[COUNT:.*]] = moa.at %[[V]][] : tensor<index>
// CHECK:       %[[MAGNITUDE:.*]] = arith.maxsi
// CHECK-NEXT:  %[[N:.*]] = moa.extent %[[A]], 0
// CHECK:       %[[MOST:.*]] = arith.minui %[[MAGNITUDE]], {{.*}} : index
// CHECK-NEXT:  moa.require %[[MOST]] le %[[N]], "drop: the count for axis 0 must not exceed the extent: expected at most {expected} (axis 0 of a), got {given} (the absolute value of v)"
// CHECK:       %[[SIZE:.*]] = arith.subi %[[N]], %[[MAGNITUDE]] : index
// CHECK:       moa.comprehension [%[[I:.*]] < %[[SIZE]]] -> tensor<?xf64>
// CHECK-NEXT:    %[[POSITIVE:.*]] = arith.cmpi slt, %[[ZERO:.*]], %[[COUNT]] : index
// CHECK-NEXT:    %[[START:.*]] = arith.select %[[POSITIVE]], %[[COUNT]], %[[ZERO]] : index
// CHECK-NEXT:    %[[K:.*]] = arith.addi %[[I]], %[[START]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[K]]]

// 3 ▽ ι5 = <3 4>
// CHECK-LABEL: func.func @psi_of_drop_of_iota(
func.func @psi_of_drop_of_iota() -> tensor<2xindex> {
  %n = moa.constant dense<5> : tensor<index>
  %v = moa.constant dense<3> : tensor<index>
  %k = moa.iota %n : tensor<index> -> tensor<5xindex>
  %b = moa.drop %v, %k : tensor<index>, tensor<5xindex> -> tensor<2xindex>
  func.return %b : tensor<2xindex>
}
// CHECK-DAG:   %[[TWO:.*]] = moa.fixed_extent 2
// CHECK-DAG:   %[[THREE:.*]] = arith.constant 3 : index
// CHECK:       moa.comprehension [%[[I:.*]] < %[[TWO]]] -> tensor<2xindex>
// CHECK-NEXT:    %[[K:.*]] = arith.addi %[[I]], %[[THREE]] : index
// CHECK-NEXT:    moa.yield %[[K]] : index
