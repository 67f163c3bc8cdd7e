// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// (<k> ++ i) ψ (f scan A) = f fold_(p <= k) ((<p> ++ i) ψ A)

// A fold of planes 0 to k needs no identity element: it has one at least.
// CHECK-LABEL: func.func @psi_of_scan(
// CHECK-SAME:    %[[A:.*]]: tensor<?x3xf64>)
func.func @psi_of_scan(%a: tensor<?x3xf64>) -> tensor<?x3xf64> {
  %s = moa.scan sub %a : tensor<?x3xf64> -> tensor<?x3xf64>
  func.return %s : tensor<?x3xf64>
}
// CHECK-NOT:   moa.require
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[ONE:.*]] = arith.constant 1 : index
// CHECK-DAG:   %[[ZERO:.*]] = arith.constant 0 : index
// CHECK:       moa.comprehension [%[[K:.*]] < %[[N]], %[[I:.*]] < %{{.*}}] -> tensor<?x3xf64>
// CHECK-NEXT:    %[[COUNT:.*]] = arith.addi %[[K]], %[[ONE]] : index
// CHECK-NEXT:    moa.fold sub [%[[P:.*]] = %[[ZERO]] to %[[COUNT]]] -> f64
// CHECK-NEXT:      moa.at %[[A]][%[[P]], %[[I]]]

// CHECK-LABEL: func.func @psi_of_scan_by_a_function(
// CHECK-SAME:    %[[A:.*]]: tensor<4xf64>)
func.func @psi_of_scan_by_a_function(%a: tensor<4xf64>) -> tensor<4xf64> {
  %s = moa.scan @decay %a : tensor<4xf64> -> tensor<4xf64>
  func.return %s : tensor<4xf64>
}
// CHECK:       moa.fold @decay [%[[P:.*]] = %{{.*}} to %{{.*}}] -> f64
// CHECK-NEXT:    moa.at %[[A]][%[[P]]]

func.func private @decay(%x: f64, %rest: f64) -> f64 {
  %half = arith.constant 0.5 : f64
  %faded = arith.mulf %half, %rest : f64
  %sum = arith.addf %x, %faded : f64
  func.return %sum : f64
}
