// RUN: moa-opt %s -p 'moa-to-dnf,moa-share,moa-restrict-domains,moa-fuse-reductions{chunk=64},moa-sink,moa-to-linalg' | filecheck %s --check-prefix CHUNKS
// RUN: moa-opt %s -p moa-to-dnf,moa-share,moa-restrict-domains,moa-fuse-reductions,moa-sink,moa-to-linalg | filecheck %s --check-prefix SINGLE
// RUN: moa-opt %s -p moa-to-dnf,moa-to-linalg | filecheck %s --check-prefix PASSES

// Sum of the exponentials of a row, relative to its maximum; all rows at once.

func.func private @maximum(%row: tensor<?xf32>) -> tensor<f32> {
  %m = moa.reduce max %row : tensor<?xf32> -> tensor<f32>
  func.return %m : tensor<f32>
}

func.func private @sum(%row: tensor<?xf32>) -> tensor<f32> {
  %s = moa.reduce add %row : tensor<?xf32> -> tensor<f32>
  func.return %s : tensor<f32>
}

func.func @weights(%x: tensor<8x?xf32>) -> tensor<8xf32> {
  %m = moa.omega @maximum <1> (%x) : (tensor<8x?xf32>) -> tensor<8xf32>
  %d = moa.omega sub <1, 0> (%x, %m) : (tensor<8x?xf32>, tensor<8xf32>) -> tensor<8x?xf32>
  %e = moa.map exp %d : tensor<8x?xf32> -> tensor<8x?xf32>
  %s = moa.omega @sum <1> (%e) : (tensor<8x?xf32>) -> tensor<8xf32>
  func.return %s : tensor<8xf32>
}

// Two passes: the maximum of each row, then the sum.
// PASSES-LABEL: func.func @weights(
// PASSES-SAME:    %[[X:.*]]: tensor<8x?xf32>)
// PASSES-NOT:     scf.for
// PASSES:         %[[MAX:.*]] = linalg.generic {{.*}} ["parallel", "reduction"]} ins(%[[X]] : tensor<8x?xf32>)
// PASSES:           arith.maximumf
// PASSES:         linalg.generic {{.*}} ["parallel", "reduction"]} ins(%[[X]], %[[MAX]] : tensor<8x?xf32>, tensor<8xf32>)
// PASSES:           math.exp
// PASSES-NEXT:      arith.addf

// One pass, in chunks: the loop carries maximum, sum and pivot of each row. Inside, the
// sum is moved from the old maximum to the new one, and the chunk is added.
// CHUNKS-LABEL: func.func @weights(
// CHUNKS-SAME:    %[[X:.*]]: tensor<8x?xf32>)
// CHUNKS:         scf.for {{.*}} iter_args(%[[MAX:.*]] = %{{.*}}, %[[SUM:.*]] = %{{.*}}, %[[PIVOT:.*]] = %{{.*}}) -> (tensor<8xf32>, tensor<8xf32>, tensor<8xf32>)
// CHUNKS:           %[[CHUNK:.*]] = tensor.extract_slice %[[X]][0, %{{.*}}] [8, %{{.*}}] [1, 1] : tensor<8x?xf32> to tensor<8x?xf32>
// CHUNKS:           linalg.generic {{.*}} ["parallel", "reduction"]} ins(%[[CHUNK]] : tensor<8x?xf32>) outs(%[[MAX]] : tensor<8xf32>)
// CHUNKS:             arith.maximumf
// CHUNKS:           %[[MOVED:.*]] = linalg.generic {{.*}} ["parallel"]} {{.*}} outs(%[[SUM]] : tensor<8xf32>)
// CHUNKS:           linalg.generic {{.*}} ["parallel", "reduction"]} {{.*}} outs(%[[MOVED]] : tensor<8xf32>)
// CHUNKS:             math.exp
// CHUNKS-NEXT:        arith.addf
// CHUNKS:           linalg.copy {{.*}} outs(%[[PIVOT]] : tensor<8xf32>)
// CHUNKS:           scf.yield

// One pass, index by index: one operation with three results.
// SINGLE-LABEL: func.func @weights(
// SINGLE-SAME:    %[[X:.*]]: tensor<8x?xf32>)
// SINGLE-NOT:     scf.for
// SINGLE:         %{{.*}}, %[[RESULT:.*]], %{{.*}} = linalg.generic {{.*}} ["parallel", "reduction"]} ins(%[[X]] : tensor<8x?xf32>)
// SINGLE:           math.exp
// SINGLE:           linalg.yield %{{.*}}, %{{.*}}, %{{.*}} : f32, f32, f32
// SINGLE:         func.return %[[RESULT]]
