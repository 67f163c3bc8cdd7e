// RUN: moa-opt %s -p moa-infer-shapes,moa-to-dnf,moa-check-dnf,moa-share,moa-sink | filecheck %s
// RUN: moa-opt %s -p moa-infer-shapes,moa-to-dnf,moa-check-dnf,moa-share,moa-sink,moa-to-onf,moa-check-storage,moa-to-scf --print-op-generic | filecheck %s --check-prefix=TARGET

// (x - mean) / sqrt(variance + eps) of every row, each by definition: mean and deviation
// are computed once for a row, and no row is stored but the result's.

func.func private @mean(%row: tensor<?xf64>) -> tensor<f64> {
  %sum = moa.reduce add %row : tensor<?xf64> -> tensor<f64>
  %count = moa.total %row : tensor<?xf64> -> tensor<index>
  %n = moa.cast %count : tensor<index> -> tensor<f64>
  %mean = moa.pointwise div %sum, %n : tensor<f64>, tensor<f64> -> tensor<f64>
  func.return %mean : tensor<f64>
}

func.func private @normalise(%row: tensor<?xf64>) -> tensor<?xf64> {
  %mean = moa.omega @mean <1> (%row) : (tensor<?xf64>) -> tensor<f64>
  %centred = moa.pointwise sub %row, %mean : tensor<?xf64>, tensor<f64> -> tensor<?xf64>
  %squares = moa.pointwise mul %centred, %centred : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
  %variance = moa.omega @mean <1> (%squares) : (tensor<?xf64>) -> tensor<f64>
  %eps = moa.constant dense<1.0e-05> : tensor<f64>
  %raised = moa.pointwise add %variance, %eps : tensor<f64>, tensor<f64> -> tensor<f64>
  %deviation = moa.map sqrt %raised : tensor<f64> -> tensor<f64>
  %result = moa.pointwise div %centred, %deviation : tensor<?xf64>, tensor<f64> -> tensor<?xf64>
  func.return %result : tensor<?xf64>
}

func.func @layer_normalisation(%x: tensor<?x?xf64>) -> tensor<?x?xf64> {
  %y = moa.omega @normalise <1> (%x) : (tensor<?x?xf64>) -> tensor<?x?xf64>
  func.return %y : tensor<?x?xf64>
}

// CHECK-LABEL: func.func @layer_normalisation(
// CHECK-SAME:    %[[X:.*]]: tensor<?x?xf64>)
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<?x?xf64>
// CHECK-NEXT:    %[[SUM:.*]] = moa.fold add
// CHECK:         %[[MEAN:.*]] = arith.divf %[[SUM]], %{{.*}} : f64
// CHECK-NEXT:    moa.fold add
// CHECK:           arith.subf %{{.*}}, %[[MEAN]] : f64
// CHECK:         %[[DEVIATION:.*]] = math.sqrt
// CHECK-NEXT:    moa.comprehension [%[[J:.*]] < %{{.*}}] -> tensor<?xf64>
// CHECK-NEXT:      %[[ELEMENT:.*]] = moa.at %[[X]][%[[I]], %[[J]]]
// CHECK-NEXT:      %[[CENTRED:.*]] = arith.subf %[[ELEMENT]], %[[MEAN]] : f64
// CHECK-NEXT:      arith.divf %[[CENTRED]], %[[DEVIATION]] : f64

// TARGET-NOT:  "moa.{{[a-z_]+}}"(
// TARGET-NOT:  "memref.alloc
// TARGET:      sym_name = "layer_normalisation"
// TARGET-NOT:  "moa.{{[a-z_]+}}"(
// TARGET-NOT:  "memref.alloc
