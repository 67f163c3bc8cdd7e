// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ (f red A) = f fold_(k < s0) ((<k> ++ i) ψ A)

// CHECK-LABEL: func.func @psi_of_reduce(
// CHECK-SAME:    %[[A:.*]]: tensor<3x4xf64>)
func.func @psi_of_reduce(%a: tensor<3x4xf64>) -> tensor<4xf64> {
  %s = moa.reduce add %a : tensor<3x4xf64> -> tensor<4xf64>
  func.return %s : tensor<4xf64>
}
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[A]], 1
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[ZERO:.*]] = arith.constant 0 : index
// CHECK:       moa.comprehension [%[[I:.*]] < %[[M]]] -> tensor<4xf64>
// CHECK-NEXT:    %[[SUM:.*]] = moa.fold add [%[[K:.*]] = %[[ZERO]] to %[[N]]] -> f64
// CHECK-NEXT:      %[[X:.*]] = moa.at %[[A]][%[[K]], %[[I]]]
// CHECK-NEXT:      moa.yield %[[X]] : f64
// CHECK:         moa.yield %[[SUM]] : f64

// A right fold of a function without identity element needs an element.
// CHECK-LABEL: func.func @psi_of_reduce_without_identity(
// CHECK-SAME:    %[[A:.*]]: tensor<?xf64>)
func.func @psi_of_reduce_without_identity(%a: tensor<?xf64>) -> tensor<f64> {
  %s = moa.reduce sub %a : tensor<?xf64> -> tensor<f64>
  func.return %s : tensor<f64>
}
// CHECK:       %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-NEXT:  %[[ONE:.*]] = moa.fixed_extent 1
// CHECK-NEXT:  moa.require %[[N]] ge %[[ONE]], "reduce: sub has no identity element, so the folded axis must not be empty: expected at least {expected}, got {given} (axis 0 of a)"
// CHECK:       moa.comprehension [] -> tensor<f64>
// CHECK-NEXT:    moa.fold sub [%{{.*}} = %{{.*}} to %[[N]]] -> f64

// A scalar function of the program folds as one of the table does.
// CHECK-LABEL: func.func @psi_of_reduce_by_a_function(
// CHECK-SAME:    %[[A:.*]]: tensor<3xf64>)
func.func @psi_of_reduce_by_a_function(%a: tensor<3xf64>) -> tensor<f64> {
  %s = moa.reduce @decay %a : tensor<3xf64> -> tensor<f64>
  func.return %s : tensor<f64>
}
// CHECK:       moa.fold @decay [%[[K:.*]] = %{{.*}} to %{{.*}}] -> f64
// CHECK-NEXT:    %[[X:.*]] = moa.at %[[A]][%[[K]]]
// CHECK-NEXT:    moa.yield %[[X]] : f64

// CHECK-LABEL: func.func private @decay(
func.func private @decay(%x: f64, %rest: f64) -> f64 {
  %half = arith.constant 0.5 : f64
  %faded = arith.mulf %half, %rest : f64
  %sum = arith.addf %x, %faded : f64
  func.return %sum : f64
}
