// RUN: moa-opt %s -p moa-to-dnf | filecheck %s
// RUN: moa-opt %s -p moa-to-dnf,moa-share,moa-sink,moa-to-onf,moa-split-loops | filecheck %s --check-prefix SPLIT

// i ψ pad(l, r, A) = (<(i_j - l_j) mod s_j> ++ (τl ▽ i)) ψ A

// CHECK-LABEL: func.func @psi_of_pad(
// CHECK-SAME:    %[[A:.*]]: tensor<?x5xf64>)
func.func @psi_of_pad(%a: tensor<?x5xf64>) -> tensor<?x5xf64> {
  %l = moa.constant dense<1> : tensor<index>
  %r = moa.constant dense<2> : tensor<index>
  %b = moa.pad %l, %r, %a : tensor<index>, tensor<index>, tensor<?x5xf64> -> tensor<?x5xf64>
  func.return %b : tensor<?x5xf64>
}
// CHECK:       %[[N:.*]] = moa.extent %[[A]], 0
// CHECK:       moa.require %{{.*}} le %[[N]], "pad: the left count for axis 0 must not exceed the extent"
// CHECK:       moa.require %{{.*}} le %[[N]], "pad: the right count for axis 0 must not exceed the extent"
// CHECK:       %[[SIZE:.*]] = arith.addi %[[N]], %{{.*}} : index
// CHECK:       %[[ONE:.*]] = arith.constant 1 : index
// CHECK:       moa.comprehension [%[[I:.*]] < %[[SIZE]], %[[J:.*]] < %{{.*}}] -> tensor<?x5xf64>
// CHECK-NEXT:    %[[AT:.*]] = arith.subi %[[I]], %[[ONE]] : index
// CHECK-NEXT:    %[[BEFORE:.*]] = arith.cmpi slt, %[[I]], %[[ONE]] : index
// CHECK-NEXT:    %[[K:.*]] = scf.if %[[BEFORE]] -> (index)
// CHECK-NEXT:      arith.addi %[[AT]], %[[N]] : index
// CHECK:           %[[END:.*]] = arith.addi %[[ONE]], %[[N]] : index
// CHECK-NEXT:      arith.cmpi slt, %[[I]], %[[END]] : index
// CHECK:             arith.subi %[[AT]], %[[N]] : index
// CHECK:         moa.at %[[A]][%[[K]], %[[J]]]

// Three loops over the rows, and nothing is asked in them.

// SPLIT-LABEL:   func.func @psi_of_pad(
// SPLIT-COUNT-3:   moa.load
// SPLIT-NOT:       moa.load
// SPLIT-NOT:       scf.if
// SPLIT:           func.return

// Two axes: three loops, and three in each.
// SPLIT-LABEL:   func.func @psi_of_pad_of_two_axes(
// SPLIT-COUNT-9:   moa.load
// SPLIT-NOT:       moa.load
// SPLIT-NOT:       scf.if
// SPLIT:           func.return
func.func @psi_of_pad_of_two_axes(%a: tensor<?x?xf64>) -> tensor<?x?xf64> {
  %l = moa.constant dense<1> : tensor<2xindex>
  %b = moa.pad %l, %l, %a : tensor<2xindex>, tensor<2xindex>, tensor<?x?xf64> -> tensor<?x?xf64>
  func.return %b : tensor<?x?xf64>
}
