// RUN: moa-opt %s -p moa-infer-shapes,moa-to-dnf,moa-check-dnf | filecheck %s --check-prefix=DNF
// RUN: moa-opt %s -p moa-infer-shapes,moa-to-dnf,moa-check-dnf,moa-share,moa-sink | filecheck %s --check-prefix=FUSED
// RUN: moa-opt %s -p moa-infer-shapes,moa-to-dnf,moa-check-dnf,moa-share,moa-sink,moa-to-onf,moa-check-storage | filecheck %s --check-prefix=ONF
// RUN: moa-opt %s -p moa-infer-shapes,moa-to-dnf,moa-check-dnf,moa-share,moa-sink,moa-to-onf,moa-check-storage,moa-to-scf --print-op-generic | filecheck %s --check-prefix=TARGET

// Attention of n queries to m keys and values:
// X = s × (Q +•× ⊘K); N = exp (X -Ω<1 0> (⌈red Ω<1> X)); (N ÷Ω<1 0> (+red Ω<1> N)) +•× V

func.func private @row_maximum(%row: tensor<?xf64>) -> tensor<f64> {
  %m = moa.reduce max %row : tensor<?xf64> -> tensor<f64>
  func.return %m : tensor<f64>
}

func.func private @row_sum(%row: tensor<?xf64>) -> tensor<f64> {
  %s = moa.reduce add %row : tensor<?xf64> -> tensor<f64>
  func.return %s : tensor<f64>
}

func.func @attention(%q: tensor<?x4xf64>, %k: tensor<?x4xf64>, %v: tensor<?x5xf64>) -> tensor<?x?xf64> {
  %s = moa.constant dense<0.5> : tensor<f64>
  %kt = moa.transpose %k : tensor<?x4xf64> -> tensor<?x?xf64>
  %products = moa.inner add mul %q, %kt : tensor<?x4xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
  %x = moa.pointwise mul %s, %products : tensor<f64>, tensor<?x?xf64> -> tensor<?x?xf64>
  %m = moa.omega @row_maximum <1> (%x) : (tensor<?x?xf64>) -> tensor<?xf64>
  %z = moa.omega sub <1, 0> (%x, %m) : (tensor<?x?xf64>, tensor<?xf64>) -> tensor<?x?xf64>
  %n = moa.map exp %z : tensor<?x?xf64> -> tensor<?x?xf64>
  %d = moa.omega @row_sum <1> (%n) : (tensor<?x?xf64>) -> tensor<?xf64>
  %y = moa.omega div <1, 0> (%n, %d) : (tensor<?x?xf64>, tensor<?xf64>) -> tensor<?x?xf64>
  %o = moa.inner add mul %y, %v : tensor<?x?xf64>, tensor<?x5xf64> -> tensor<?x?xf64>
  func.return %o : tensor<?x?xf64>
}

// Q, K, V and the result are the only arrays: no transposed K, no scores, no weights.
// The only condition is that there are as many values as keys.
// DNF-LABEL: func.func @attention(
// DNF-SAME:    %[[Q:.*]]: tensor<?x4xf64>, %[[K:.*]]: tensor<?x4xf64>, %[[V:.*]]: tensor<?x5xf64>) -> tensor<?x5xf64>
// DNF-DAG:     %[[VALUES:.*]] = moa.extent %[[V]], 0
// DNF-DAG:     %[[KEYS:.*]] = moa.extent %[[K]], 0
// DNF:         moa.require %[[VALUES]] eq %[[KEYS]]
// DNF-NOT:     moa.{{constant|transpose|inner|pointwise|map|omega|reduce|require}}
// DNF:         moa.comprehension [%[[I:.*]] < %{{.*}}, %[[L:.*]] < %{{.*}}] -> tensor<?x5xf64>
// DNF-NEXT:      moa.fold add [%[[P:.*]] = %{{.*}} to %[[KEYS]]] -> f64
// DNF:             moa.fold add [%[[C:.*]] = %{{.*}} to %{{.*}}] -> f64
// DNF-NEXT:          moa.at %[[Q]][%[[I]], %[[C]]]
// DNF-NEXT:          moa.at %[[K]][%[[P]], %[[C]]]
// DNF:             moa.fold max [%{{.*}} = %{{.*}} to %[[KEYS]]] -> f64
// DNF:             math.exp
// DNF:             moa.fold add [%{{.*}} = %{{.*}} to %[[KEYS]]] -> f64
// DNF:             arith.divf
// DNF-NEXT:        moa.at %[[V]][%[[P]], %[[L]]]
// DNF-NOT:     moa.{{comprehension|constant|transpose|inner|pointwise|map|omega|reduce}}

// The maximum and the sum of a row are computed once, as is a weight for a row of V.
// FUSED-LABEL: func.func @attention(
// FUSED-SAME:    %[[V:[^ ,]*]]: tensor<?x5xf64>)
// FUSED:         moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<?x5xf64>
// FUSED-NEXT:      %[[MAXIMUM:.*]] = moa.fold max [%{{.*}} = %{{.*}} to %{{.*}}] -> f64
// FUSED-NEXT:        moa.fold add
// FUSED:           %[[SUM:.*]] = moa.fold add [%{{.*}} = %{{.*}} to %{{.*}}] -> f64
// FUSED-NEXT:        moa.fold add
// FUSED:             arith.subf %{{.*}}, %[[MAXIMUM]] : f64
// FUSED:           moa.fold add [%[[P:.*]] = %{{.*}} to %{{.*}}] -> tensor<5xf64>
// FUSED:             arith.subf %{{.*}}, %[[MAXIMUM]] : f64
// FUSED:             %[[WEIGHT:.*]] = arith.divf %{{.*}}, %[[SUM]] : f64
// FUSED-NEXT:        moa.comprehension [%[[L:.*]] < %{{.*}}] -> tensor<5xf64>
// FUSED-NEXT:          %[[VALUE:.*]] = moa.at %[[V]][%[[P]], %[[L]]]
// FUSED-NEXT:          arith.mulf %[[WEIGHT]], %[[VALUE]] : f64

// A row of the result is its own accumulators: no scratch memory at all.
// ONF-LABEL:   func.func @attention(
// ONF-SAME:      memref<?x5xf64> {moa.result}, %{{.*}}: memref<3xi64> {moa.status})
// ONF-NOT:       moa.buffer
// ONF:           moa.loop [%{{.*}} = %{{.*}} to %{{.*}} by 1]
// ONF-NOT:       moa.buffer
// ONF:             moa.loop [%{{.*}} = %{{.*}} to %{{.*}} by -1]
// ONF-NOT:       moa.buffer
// ONF:         func.func @attention.extents(

// TARGET-NOT:  "moa.{{[a-z_]+}}"(
// TARGET-NOT:  "memref.{{alloc|alloca|global}}"(
// TARGET:      sym_name = "attention"
// TARGET-NOT:  "moa.{{[a-z_]+}}"(
// TARGET-NOT:  "memref.{{alloc|alloca|global}}"(
// TARGET:      sym_name = "attention.extents"
// TARGET-NOT:  "moa.{{[a-z_]+}}"(
