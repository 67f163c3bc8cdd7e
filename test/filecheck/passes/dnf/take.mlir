// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ (v △ A) = i' ψ A with i'_j = i_j + (s_j - |v_j| if v_j < 0 else 0)

// From the front, indices stay.
// CHECK-LABEL: func.func @psi_of_take(
// CHECK-SAME:    %[[A:.*]]: tensor<4x5xf64>)
func.func @psi_of_take(%a: tensor<4x5xf64>) -> tensor<2x5xf64> {
  %v = moa.constant dense<2> : tensor<index>
  %b = moa.take %v, %a : tensor<index>, tensor<4x5xf64> -> tensor<2x5xf64>
  func.return %b : tensor<2x5xf64>
}
// CHECK-DAG:   %[[TWO:.*]] = moa.fixed_extent 2
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[A]], 1
// CHECK:       moa.comprehension [%[[I:.*]] < %[[TWO]], %[[J:.*]] < %[[M]]] -> tensor<2x5xf64>
// CHECK-NEXT:    moa.at %[[A]][%[[I]], %[[J]]]

// From the end, they begin at s - 2.
// CHECK-LABEL: func.func @psi_of_take_from_the_end(
// CHECK-SAME:    %[[A:.*]]: tensor<?x5xf64>)
func.func @psi_of_take_from_the_end(%a: tensor<?x5xf64>) -> tensor<2x5xf64> {
  %v = moa.constant dense<-2> : tensor<index>
  %b = moa.take %v, %a : tensor<index>, tensor<?x5xf64> -> tensor<2x5xf64>
  func.return %b : tensor<2x5xf64>
}
// CHECK-DAG:   %[[TWO:.*]] = moa.fixed_extent 2
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK:       moa.require %[[TWO]] le %[[N]], "take: the count for axis 0 must not exceed the extent: expected at most {expected} (axis 0 of a), got {given}"
// CHECK:       %[[V:.*]] = arith.constant -2 : index
// CHECK:       moa.comprehension [%[[I:.*]] < %[[TWO]], %[[J:.*]] < %{{.*}}] -> tensor<2x5xf64>
// CHECK-NEXT:    %[[START:.*]] = arith.addi %[[N]], %[[V]] : index
// CHECK-NEXT:    %[[K:.*]] = arith.addi %[[I]], %[[START]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[K]], %[[J]]]

// Each leading axis has its count; the axes after them stay whole.
// CHECK-LABEL: func.func @psi_of_take_by_a_vector(
// CHECK-SAME:    %[[A:.*]]: tensor<4x5x6xf64>)
func.func @psi_of_take_by_a_vector(%a: tensor<4x5x6xf64>) -> tensor<2x3x6xf64> {
  %v = moa.constant dense<[2, -3]> : tensor<2xindex>
  %b = moa.take %v, %a : tensor<2xindex>, tensor<4x5x6xf64> -> tensor<2x3x6xf64>
  func.return %b : tensor<2x3x6xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}, %[[K:.*]] < %{{.*}}] ->
// CHECK:         %[[L:.*]] = arith.addi %[[J]], %{{.*}} : index
// CHECK-NEXT:    moa.at %[[A]][%[[I]], %[[L]], %[[K]]]

// A count from data is read at the entry, and where it begins is chosen by its sign.
// CHECK-LABEL: func.func @psi_of_take_by_data(
// CHECK-SAME:    %[[V:.*]]: tensor<index>, %[[A:.*]]: tensor<?xf64>)
func.func @psi_of_take_by_data(%v: tensor<index>, %a: tensor<?xf64>) -> tensor<?xf64> {
  %b = moa.take %v, %a : tensor<index>, tensor<?xf64> -> tensor<?xf64>
  func.return %b : tensor<?xf64>
}
// CHECK:       %[[COUNT:.*]] = moa.at %[[V]][] : tensor<index>
// CHECK:       %[[SIZE:.*]] = arith.maxsi
// CHECK-NEXT:  %[[N:.*]] = moa.extent %[[A]], 0
// CHECK:       %[[MOST:.*]] = arith.minui %[[SIZE]], {{.*}} : index
// CHECK-NEXT:  moa.require %[[MOST]] le %[[N]], "take: the count for axis 0 must not exceed the extent: expected at most {expected} (axis 0 of a), got {given} (the absolute value of v)"
// CHECK-NEXT:  %[[ZERO:.*]] = arith.constant 0 : index
// CHECK-NEXT:  moa.comprehension [%[[I:.*]] < %[[SIZE]]] -> tensor<?xf64>
// CHECK-NEXT:    %[[END:.*]] = arith.addi %[[N]], %[[COUNT]] : index
// CHECK-NEXT:    %[[NEGATIVE:.*]] = arith.cmpi slt, %[[COUNT]], %[[ZERO]] : index
// CHECK-NEXT:    %[[START:.*]] = arith.select %[[NEGATIVE]], %[[END]], %[[ZERO]] : index
// CHECK-NEXT:    %[[K:.*]] = arith.addi %[[I]], %[[START]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[K]]]

// k △ (j △ A) = k △ A
// CHECK-LABEL: func.func @psi_of_take_of_take(
// CHECK-SAME:    %[[A:.*]]: tensor<?xf64>)
func.func @psi_of_take_of_take(%a: tensor<?xf64>) -> tensor<2xf64> {
  %j = moa.constant dense<3> : tensor<index>
  %k = moa.constant dense<2> : tensor<index>
  %b = moa.take %j, %a : tensor<index>, tensor<?xf64> -> tensor<3xf64>
  %c = moa.take %k, %b : tensor<index>, tensor<3xf64> -> tensor<2xf64>
  func.return %c : tensor<2xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<2xf64>
// CHECK-NEXT:    moa.at %[[A]][%[[I]]]
