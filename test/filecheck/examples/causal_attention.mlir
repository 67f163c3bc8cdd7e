// RUN: moa-opt %s -p moa-infer-shapes,moa-to-dnf,moa-check-dnf | filecheck %s
// RUN: moa-opt %s -p moa-infer-shapes,moa-to-dnf,moa-check-dnf,moa-share,moa-sink,moa-to-onf,moa-check-storage,moa-to-scf --print-op-generic | filecheck %s --check-prefix=TARGET

// The scores of attention where query i sees keys up to i: the mask is an outer comparison
// of two iotas, and the normal form compares the indices themselves.

func.func @causal_scores(%q: tensor<?x4xf64>, %k: tensor<?x4xf64>) -> tensor<?x?xf64> {
  %first = moa.constant dense<0> : tensor<1xindex>
  %q_shape = moa.shape %q : tensor<?x4xf64> -> tensor<2xindex>
  %k_shape = moa.shape %k : tensor<?x4xf64> -> tensor<2xindex>
  %n = moa.psi %first, %q_shape : tensor<1xindex>, tensor<2xindex> -> tensor<index>
  %m = moa.psi %first, %k_shape : tensor<1xindex>, tensor<2xindex> -> tensor<index>
  %rows = moa.iota %n : tensor<index> -> tensor<?xindex>
  %columns = moa.iota %m : tensor<index> -> tensor<?xindex>
  %visible = moa.outer ge %rows, %columns : tensor<?xindex>, tensor<?xindex> -> tensor<?x?xi1>
  %kt = moa.transpose %k : tensor<?x4xf64> -> tensor<4x?xf64>
  %x = moa.inner add mul %q, %kt : tensor<?x4xf64>, tensor<4x?xf64> -> tensor<?x?xf64>
  %none = moa.constant dense<0xFFF0000000000000> : tensor<f64>
  %masked = moa.where %visible, %x, %none : tensor<?x?xi1>, tensor<?x?xf64>, tensor<f64> -> tensor<?x?xf64>
  func.return %masked : tensor<?x?xf64>
}

// The extents of the mask are those of the scores: nothing of that is left to check.
// CHECK-LABEL: func.func @causal_scores(
// CHECK-SAME:    %[[Q:.*]]: tensor<?x4xf64>, %[[K:.*]]: tensor<?x4xf64>)
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[Q]], 0
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[K]], 0
// CHECK-NOT:   moa.require %{{.*}} eq
// CHECK:       moa.comprehension [%[[I:.*]] < %[[N]], %[[J:.*]] < %[[M]]] -> tensor<?x?xf64>
// CHECK-NEXT:    %[[VISIBLE:.*]] = arith.cmpi sge, %[[I]], %[[J]] : index
// CHECK-NEXT:    %[[X:.*]] = moa.fold add
// CHECK:         %[[NONE:.*]] = arith.constant 0xfff0000000000000 : f64
// CHECK-NEXT:    arith.select %[[VISIBLE]], %[[X]], %[[NONE]] : f64

// TARGET-NOT:  "moa.{{[a-z_]+}}"(
// TARGET:      sym_name = "causal_scores"
// TARGET-NOT:  "moa.{{[a-z_]+}}"(
