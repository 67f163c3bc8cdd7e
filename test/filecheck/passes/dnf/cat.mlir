// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ (A ++ B) = i ψ A if i0 < a0, else (<i0 - a0> ++ (1 ▽ i)) ψ B

// Only the element that is chosen is read: the other one need not exist.
// CHECK-LABEL: func.func @psi_of_cat(
// CHECK-SAME:    %[[A:.*]]: tensor<?x?xf64>, %[[B:.*]]: tensor<?x?xf64>)
func.func @psi_of_cat(%a: tensor<?x?xf64>, %b: tensor<?x?xf64>) -> tensor<?x?xf64> {
  %c = moa.cat %a, %b : tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
  func.return %c : tensor<?x?xf64>
}
// CHECK-DAG:   %[[GIVEN:.*]] = moa.extent %[[B]], 1
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[A]], 1
// CHECK:       moa.require %[[GIVEN]] eq %[[M]], "cat: extents of axis 1 must be equal: expected {expected} (axis 1 of a), got {given} (axis 1 of b)"
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[L:.*]] = moa.extent %[[B]], 0
// CHECK:       %[[SUM:.*]] = arith.addi %[[N]], %[[L]] : index
// CHECK-NEXT:  moa.comprehension [%[[I:.*]] < %[[SUM]], %[[J:.*]] < %[[M]]] -> tensor<?x?xf64>
// CHECK-NEXT:    %[[LEFT:.*]] = arith.cmpi slt, %[[I]], %[[N]] : index
// CHECK-NEXT:    %[[CHOSEN:.*]] = scf.if %[[LEFT]] -> (f64) {
// CHECK-NEXT:      %[[X:.*]] = moa.at %[[A]][%[[I]], %[[J]]]
// CHECK-NEXT:      scf.yield %[[X]] : f64
// CHECK-NEXT:    } else {
// CHECK-NEXT:      %[[K:.*]] = arith.subi %[[I]], %[[N]] : index
// CHECK-NEXT:      %[[Y:.*]] = moa.at %[[B]][%[[K]], %[[J]]]
// CHECK-NEXT:      scf.yield %[[Y]] : f64
// CHECK-NEXT:    }
// CHECK-NEXT:    moa.yield %[[CHOSEN]] : f64

// A scalar is one plane, whatever the index in it.
// CHECK-LABEL: func.func @psi_of_cat_with_a_scalar(
// CHECK-SAME:    %[[A:.*]]: tensor<2x3xf64>, %[[X:.*]]: tensor<f64>)
func.func @psi_of_cat_with_a_scalar(%a: tensor<2x3xf64>, %x: tensor<f64>) -> tensor<3x3xf64> {
  %c = moa.cat %a, %x : tensor<2x3xf64>, tensor<f64> -> tensor<3x3xf64>
  func.return %c : tensor<3x3xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] -> tensor<3x3xf64>
// CHECK:         scf.if
// CHECK-NEXT:      moa.at %[[A]][%[[I]], %[[J]]]
// CHECK:         } else {
// CHECK-NEXT:      moa.at %[[X]][]

// CHECK-LABEL: func.func @psi_of_cat_of_a_scalar(
// CHECK-SAME:    %[[X:.*]]: tensor<f64>, %[[A:.*]]: tensor<2x3xf64>)
func.func @psi_of_cat_of_a_scalar(%x: tensor<f64>, %a: tensor<2x3xf64>) -> tensor<3x3xf64> {
  %c = moa.cat %x, %a : tensor<f64>, tensor<2x3xf64> -> tensor<3x3xf64>
  func.return %c : tensor<3x3xf64>
}
// CHECK:       %[[ONE:.*]] = arith.constant 1 : index
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] -> tensor<3x3xf64>
// CHECK-NEXT:    %[[FIRST:.*]] = arith.cmpi slt, %[[I]], %[[ONE]] : index
// CHECK-NEXT:    scf.if %[[FIRST]]
// CHECK-NEXT:      moa.at %[[X]][]
// CHECK:         } else {
// CHECK-NEXT:      %[[K:.*]] = arith.subi %[[I]], %[[ONE]] : index
// CHECK-NEXT:      moa.at %[[A]][%[[K]], %[[J]]]

// CHECK-LABEL: func.func @psi_of_cat_of_two_scalars(
// CHECK-SAME:    %[[X:.*]]: tensor<f64>, %[[Y:.*]]: tensor<f64>)
func.func @psi_of_cat_of_two_scalars(%x: tensor<f64>, %y: tensor<f64>) -> tensor<2xf64> {
  %c = moa.cat %x, %y : tensor<f64>, tensor<f64> -> tensor<2xf64>
  func.return %c : tensor<2xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<2xf64>
// CHECK:         scf.if
// CHECK-NEXT:      moa.at %[[X]][]
// CHECK:         } else {
// CHECK-NEXT:      moa.at %[[Y]][]

// The operands of the operands are in the branches, too.
// CHECK-LABEL: func.func @psi_of_cat_of_expressions(
// CHECK-SAME:    %[[A:.*]]: tensor<?xf64>, %[[B:.*]]: tensor<?xf64>)
func.func @psi_of_cat_of_expressions(%a: tensor<?xf64>, %b: tensor<?xf64>) -> tensor<?xf64> {
  %e = moa.map exp %a : tensor<?xf64> -> tensor<?xf64>
  %n = moa.map neg %b : tensor<?xf64> -> tensor<?xf64>
  %c = moa.cat %e, %n : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
  func.return %c : tensor<?xf64>
}
// CHECK:         scf.if
// CHECK-NEXT:      %[[X:.*]] = moa.at %[[A]]
// CHECK-NEXT:      math.exp %[[X]]
// CHECK:         } else {
// CHECK:           %[[Y:.*]] = moa.at %[[B]]
// CHECK-NEXT:      arith.negf %[[Y]]
