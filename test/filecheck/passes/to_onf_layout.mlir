// RUN: moa-opt %s -p 'moa-to-dnf,moa-to-onf{layout=row}' | filecheck %s --check-prefixes=CHECK,ROW
// RUN: moa-opt %s -p 'moa-to-dnf,moa-to-onf{layout=column}' | filecheck %s --check-prefixes=CHECK,COLUMN
// RUN: moa-opt %s -p moa-to-dnf,moa-to-onf | filecheck %s --check-prefixes=CHECK,ROW

// γ of a layout is the sum of index * stride; the stride of an axis is the product of the
// extents after it (row) or before it (column).

// CHECK-LABEL: func.func @layout(
// ROW-SAME:      %[[A:.*]]: memref<3x?x5xf64>, %[[B:.*]]: memref<3x?x5xf64> {moa.result})
// COLUMN-SAME:   %[[A:.*]]: memref<3x?x5xf64, strided<[1, 3, ?]>>, %[[B:.*]]: memref<3x?x5xf64, strided<[1, 3, ?]>> {moa.result})
func.func @layout(%a: tensor<3x?x5xf64>) -> tensor<3x?x5xf64> {
  %b = moa.map exp %a : tensor<3x?x5xf64> -> tensor<3x?x5xf64>
  func.return %b : tensor<3x?x5xf64>
}
// CHECK-DAG:   %[[N0:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[N1:.*]] = moa.extent %[[A]], 1
// CHECK-DAG:   %[[N2:.*]] = moa.extent %[[A]], 2
// ROW-DAG:     %[[FLAT:.*]] = moa.rav row %[[A]]
// ROW-DAG:     %[[STRIDE:.*]] = arith.muli %[[N1]], %[[N2]] : index
// COLUMN-DAG:  %[[FLAT:.*]] = moa.rav column %[[A]]
// COLUMN-DAG:  %[[STRIDE:.*]] = arith.muli %[[N0]], %[[N1]] : index
// CHECK-DAG:   %[[ONE:.*]] = arith.constant 1 : index
// CHECK:       moa.loop [%[[I:.*]] = %{{.*}} to %[[N0]] by 1]
// CHECK-NEXT:    moa.loop [%[[J:.*]] = %{{.*}} to %[[N1]] by 1]
// CHECK-NEXT:      moa.loop [%[[K:.*]] = %{{.*}} to %[[N2]] by 1]
// ROW-NEXT:          moa.load %[[FLAT]][%{{.*}}, %[[I]] * %[[STRIDE]], %[[J]] * %[[N2]], %[[K]] * %[[ONE]]]
// COLUMN-NEXT:       moa.load %[[FLAT]][%{{.*}}, %[[I]] * %[[ONE]], %[[J]] * %[[N0]], %[[K]] * %[[STRIDE]]]

// Constants of the program keep their own layout.
// CHECK-LABEL: func.func @constants_are_in_row_order(
func.func @constants_are_in_row_order() -> tensor<2x2xf64> {
  %c = moa.constant dense<[[1.0, 2.0], [3.0, 4.0]]> : tensor<2x2xf64>
  func.return %c : tensor<2x2xf64>
}
// CHECK:       %[[C:.*]] = memref.get_global
// CHECK:       moa.rav row %[[C]]
