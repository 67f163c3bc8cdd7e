// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ (v △ A) = i' ψ A with i'_j = i_j + (s_j - |v_j| if v_j < 0 else 0)

// From the front the index stays, from the end it is moved; other axes stay whole.
// CHECK-LABEL: func.func @psi_of_take(
// CHECK-SAME:    %[[A:.*]]: tensor<5x6x7xf64>)
func.func @psi_of_take(%a: tensor<5x6x7xf64>) -> tensor<2x3x7xf64> {
  %v = moa.constant dense<[2, -3]> : tensor<2xindex>
  %b = moa.take %v, %a : tensor<2xindex>, tensor<5x6x7xf64> -> tensor<2x3x7xf64>
  func.return %b : tensor<2x3x7xf64>
}
// CHECK-NOT:   moa.require
// CHECK-DAG:   %[[TWO:.*]] = moa.fixed_extent 2
// CHECK-DAG:   %[[THREE:.*]] = moa.fixed_extent 3
// CHECK-DAG:   %[[S1:.*]] = moa.extent %[[A]], 1
// CHECK-DAG:   %[[LAST_THREE:.*]] = arith.constant -3 : index
// CHECK:       moa.comprehension [%[[I:.*]] < %[[TWO]], %[[J:.*]] < %[[THREE]], %[[K:.*]] < %{{.*}}] -> tensor<2x3x7xf64>
// CHECK-NEXT:    %[[SHIFT:.*]] = arith.addi %[[S1]], %[[LAST_THREE]] : index
// CHECK-NEXT:    %[[MOVED:.*]] = arith.addi %[[J]], %[[SHIFT]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[I]], %[[MOVED]], %[[K]]]

// A count from data is an extent: read and checked at the entry, its sign where needed.
// CHECK-LABEL: func.func @psi_of_take_of_data(
// CHECK-SAME:    %[[V:.*]]: tensor<index>, %[[A:.*]]: tensor<?xf64>)
func.func @psi_of_take_of_data(%v: tensor<index>, %a: tensor<?xf64>) -> tensor<?xf64> {
  %b = moa.take %v, %a : tensor<index>, tensor<?xf64> -> tensor<?xf64>
  func.return %b : tensor<?xf64>
}
// CHECK:       %[[COUNT:.*]] = moa.at %[[V]][]
// CHECK:       %[[LENGTH:.*]] = arith.maxsi %[[COUNT]], %{{.*}} : index
// CHECK:       %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-NEXT:  moa.require %[[LENGTH]] le %[[N]], "take: the count for axis 0 must not exceed the extent"
// CHECK:       moa.comprehension [%[[I:.*]] < %[[LENGTH]]] -> tensor<?xf64>
// CHECK:         %[[BACK:.*]] = arith.addi %[[N]], %[[COUNT]] : index
// CHECK:         %[[NEGATIVE:.*]] = arith.cmpi slt, %[[COUNT]], %[[ZERO:.*]] : index
// CHECK-NEXT:    %[[SHIFT:.*]] = arith.select %[[NEGATIVE]], %[[BACK]], %[[ZERO]] : index
// CHECK-NEXT:    %[[MOVED:.*]] = arith.addi %[[I]], %[[SHIFT]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[MOVED]]]
