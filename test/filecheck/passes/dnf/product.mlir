// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// π v = × fold_k (<k> ψ v)

// CHECK-LABEL: func.func @psi_of_product(
// CHECK-SAME:    %[[V:.*]]: tensor<?xf64>)
func.func @psi_of_product(%v: tensor<?xf64>) -> tensor<f64> {
  %p = moa.product %v : tensor<?xf64> -> tensor<f64>
  func.return %p : tensor<f64>
}
// CHECK:       %[[N:.*]] = moa.extent %[[V]], 0
// CHECK:       moa.comprehension [] -> tensor<f64>
// CHECK-NEXT:    moa.fold mul [%[[P:.*]] = %{{.*}} to %[[N]]]
// CHECK-NEXT:      moa.at %[[V]][%[[P]]]

// π(ρA) is in extents, as τA is.
// CHECK-LABEL: func.func @psi_of_product_of_shape(
// CHECK-SAME:    %[[A:.*]]: tensor<?xf64>)
func.func @psi_of_product_of_shape(%a: tensor<?xf64>) -> tensor<index> {
  %s = moa.shape %a : tensor<?xf64> -> tensor<1xindex>
  %p = moa.product %s : tensor<1xindex> -> tensor<index>
  func.return %p : tensor<index>
}
// CHECK:       %[[N:.*]] = moa.extent %[[A]], 0
// CHECK:         moa.fold mul
// CHECK-NEXT:      moa.yield %[[N]] : index
