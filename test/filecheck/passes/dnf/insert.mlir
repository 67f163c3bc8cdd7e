// RUN: moa-opt %s -p moa-to-dnf | filecheck %s
// RUN: moa-opt %s -p moa-to-dnf,moa-share,moa-sink,moa-to-onf,moa-split-loops | filecheck %s --check-prefix SPLIT

// i ψ insert(o, B, A) = (i - o) ψ B if o <= i < o + ρB, else i ψ A

// CHECK-LABEL: func.func @psi_of_insert(
// CHECK-SAME:    %[[O:.*]]: tensor<1xindex>, %[[B:.*]]: tensor<?x5xf64>, %[[A:.*]]: tensor<?x5xf64>)
func.func @psi_of_insert(%o: tensor<1xindex>, %b: tensor<?x5xf64>, %a: tensor<?x5xf64>) -> tensor<?x5xf64> {
  %c = moa.insert %o, %b, %a : tensor<1xindex>, tensor<?x5xf64>, tensor<?x5xf64> -> tensor<?x5xf64>
  func.return %c : tensor<?x5xf64>
}
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[B]], 0
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK:       moa.require %[[M]] le %[[N]], "insert: the block must not be longer than axis 0"
// CHECK:       %[[START:.*]] = moa.at %[[O]][
// CHECK:       moa.require %[[START]] ge %{{.*}}, "insert: the offset for axis 0 must not be negative"
// CHECK-NEXT:  %[[LAST:.*]] = arith.subi %[[N]], %[[M]] : index
// CHECK-NEXT:  moa.require %[[START]] le %[[LAST]], "insert: the block must not reach beyond axis 0: offset"
// CHECK:       moa.comprehension [%[[I:.*]] < %[[N]], %[[J:.*]] < %{{.*}}] -> tensor<?x5xf64>
// CHECK-NEXT:    arith.cmpi slt, %[[I]], %[[START]] : index
// CHECK-NEXT:    %[[INSIDE:.*]] = scf.if
// CHECK:           %[[END:.*]] = arith.addi %[[START]], %[[M]] : index
// CHECK-NEXT:      arith.cmpi slt, %[[I]], %[[END]] : index
// CHECK:         scf.if %[[INSIDE]] -> (f64)
// CHECK-NEXT:      %[[K:.*]] = arith.subi %[[I]], %[[START]] : index
// CHECK-NEXT:      moa.at %[[B]][%[[K]], %[[J]]]
// CHECK:         } else {
// CHECK-NEXT:      moa.at %[[A]][%[[I]], %[[J]]]

// Rows before, with, and after the block.

// SPLIT-LABEL:   func.func @psi_of_insert(
// SPLIT-COUNT-3:   moa.store
// SPLIT-NOT:       moa.store
// SPLIT-NOT:       scf.if
// SPLIT:           func.return

// In the rows with the block, columns before, in, and after it.
// SPLIT-LABEL:   func.func @psi_of_insert_of_two_axes(
// SPLIT-COUNT-5:   moa.store
// SPLIT-NOT:       moa.store
// SPLIT-NOT:       scf.if
// SPLIT:           func.return
func.func @psi_of_insert_of_two_axes(%o: tensor<2xindex>, %b: tensor<?x?xf64>, %a: tensor<?x?xf64>) -> tensor<?x?xf64> {
  %c = moa.insert %o, %b, %a : tensor<2xindex>, tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
  func.return %c : tensor<?x?xf64>
}
