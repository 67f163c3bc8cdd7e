// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// <k> ψ ρA is the extent of axis k of A.

// CHECK-LABEL: func.func @psi_of_shape(
// CHECK-SAME:    %[[A:.*]]: tensor<?x4xf64>)
func.func @psi_of_shape(%a: tensor<?x4xf64>) -> tensor<2xindex> {
  %s = moa.shape %a : tensor<?x4xf64> -> tensor<2xindex>
  func.return %s : tensor<2xindex>
}
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[A]], 1
// CHECK-DAG:   %[[ZERO:.*]] = arith.constant 0 : index
// CHECK:       moa.comprehension [%[[K:.*]] < %{{.*}}] -> tensor<2xindex>
// CHECK-NEXT:    %[[FIRST:.*]] = arith.cmpi eq, %[[K]], %[[ZERO]] : index
// CHECK-NEXT:    %[[X:.*]] = arith.select %[[FIRST]], %[[N]], %[[M]] : index
// CHECK-NEXT:    moa.yield %[[X]] : index

// The extent of a value that is no argument is one of the arguments' extents.
// CHECK-LABEL: func.func @psi_of_shape_of_an_intermediate(
// CHECK-SAME:    %[[A:.*]]: tensor<?x?xf64>)
func.func @psi_of_shape_of_an_intermediate(%a: tensor<?x?xf64>) -> tensor<index> {
  %t = moa.transpose %a : tensor<?x?xf64> -> tensor<?x?xf64>
  %s = moa.shape %t : tensor<?x?xf64> -> tensor<2xindex>
  %k = moa.constant dense<0> : tensor<1xindex>
  %n = moa.psi %k, %s : tensor<1xindex>, tensor<2xindex> -> tensor<index>
  func.return %n : tensor<index>
}
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[A]], 1
// CHECK:       moa.comprehension [] -> tensor<index>
// CHECK:         moa.yield %[[M]] : index
