// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// (<k> ++ i) ψ (f scan A) = f fold_(p <= k) ((<p> ++ i) ψ A)

// No fold is empty, so a function without identity element needs no check.
// CHECK-LABEL: func.func @psi_of_scan(
// CHECK-SAME:    %[[A:.*]]: tensor<?x3xf64>)
func.func @psi_of_scan(%a: tensor<?x3xf64>) -> tensor<?x3xf64> {
  %b = moa.scan sub %a : tensor<?x3xf64> -> tensor<?x3xf64>
  func.return %b : tensor<?x3xf64>
}
// CHECK-NOT:   moa.require
// CHECK-DAG:   %[[ONE:.*]] = arith.constant 1 : index
// CHECK-DAG:   %[[ZERO:.*]] = arith.constant 0 : index
// CHECK:       moa.comprehension [%[[K:.*]] < %{{.*}}, %[[I:.*]] < %{{.*}}] -> tensor<?x3xf64>
// CHECK-NEXT:    %[[STOP:.*]] = arith.addi %[[K]], %[[ONE]] : index
// CHECK-NEXT:    moa.fold sub [%[[P:.*]] = %[[ZERO]] to %[[STOP]]] -> f64
// CHECK-NEXT:      moa.at %[[A]][%[[P]], %[[I]]]
