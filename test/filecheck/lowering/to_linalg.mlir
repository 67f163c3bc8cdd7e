// RUN: moa-opt %s -p moa-to-linalg | filecheck %s
// RUN: moa-opt %s -p moa-to-dnf,moa-to-linalg | filecheck %s
// RUN: moa-opt %s -p moa-to-linalg{checks=false} | filecheck %s --check-prefix TRUST

// Elements that linalg can say the place of are operands.

// CHECK-LABEL: func.func @transpose(
// CHECK-SAME:    %[[A:.*]]: tensor<?x4xf32>)
// CHECK:         %[[B:.*]] = linalg.generic {indexing_maps = [affine_map<(d0, d1) -> (d1, d0)>, affine_map<(d0, d1) -> (d0, d1)>], iterator_types = ["parallel", "parallel"]} ins(%[[A]] : tensor<?x4xf32>)
// CHECK-NEXT:    ^bb0(%[[X:.*]]: f32, %{{.*}}: f32):
// CHECK-NEXT:      linalg.yield %[[X]] : f32
// CHECK:         func.return %[[B]]
func.func @transpose(%a: tensor<?x4xf32>) -> tensor<4x?xf32> {
  %b = moa.transpose %a [1, 0] : tensor<?x4xf32> -> tensor<4x?xf32>
  func.return %b : tensor<4x?xf32>
}

// A part of an array is a slice of it.

// CHECK-LABEL: func.func @drop(
// CHECK-SAME:    %[[A:.*]]: tensor<6x4xf32>)
// CHECK:         %[[PART:.*]] = tensor.extract_slice %[[A]][1, 0] [5, 4] [1, 1] : tensor<6x4xf32> to tensor<5x4xf32>
// CHECK:         linalg.generic {{.*}} ins(%[[PART]] : tensor<5x4xf32>)
func.func @drop(%a: tensor<6x4xf32>) -> tensor<5x4xf32> {
  %v = moa.constant dense<[1]> : tensor<1xindex>
  %b = moa.drop %v, %a : tensor<1xindex>, tensor<6x4xf32> -> tensor<5x4xf32>
  func.return %b : tensor<5x4xf32>
}

// Others are read in the body.

// CHECK-LABEL: func.func @reverse(
// CHECK-SAME:    %[[A:.*]]: tensor<6xf32>)
// CHECK:         linalg.generic {{.*}} outs(
// CHECK:           %[[I:.*]] = linalg.index 0
// CHECK:           tensor.extract %[[A]][%{{.*}}] : tensor<6xf32>
func.func @reverse(%a: tensor<6xf32>) -> tensor<6xf32> {
  %b = moa.reverse %a : tensor<6xf32> -> tensor<6xf32>
  func.return %b : tensor<6xf32>
}

// What is chosen between is read where it is chosen.

// CHECK-LABEL: func.func @cat(
// CHECK:         linalg.generic
// CHECK:           scf.if
// CHECK-NEXT:        tensor.extract %{{.*}} : tensor<?xf32>
// CHECK:           } else {
// CHECK:             tensor.extract %{{.*}} : tensor<?xf32>
func.func @cat(%a: tensor<?xf32>, %b: tensor<?xf32>) -> tensor<?xf32> {
  %c = moa.cat %a, %b : tensor<?xf32>, tensor<?xf32> -> tensor<?xf32>
  func.return %c : tensor<?xf32>
}

// A fold is a reduction: its axis is a loop that the result does not have.

// CHECK-LABEL: func.func @sum(
// CHECK:         %[[START:.*]] = linalg.fill
// CHECK:         linalg.generic {indexing_maps = [affine_map<(d0, d1) -> (d1, d0)>, affine_map<(d0, d1) -> (d0)>], iterator_types = ["parallel", "reduction"]} {{.*}} outs(%[[START]] : tensor<5xf32>)
// CHECK-NEXT:    ^bb0(%[[X:.*]]: f32, %[[SUM:.*]]: f32):
// CHECK-NEXT:      arith.addf %[[SUM]], %[[X]] : f32
func.func @sum(%a: tensor<4x5xf32>) -> tensor<5xf32> {
  %b = moa.reduce add %a : tensor<4x5xf32> -> tensor<5xf32>
  func.return %b : tensor<5xf32>
}

// A difference is folded in its order, from the last element.

// CHECK-LABEL: func.func @alternating(
// CHECK-NOT:     "reduction"
// CHECK:         scf.for %{{.*}} = %{{.*}} to %{{.*}} step %{{.*}} iter_args(%[[OLD:.*]] = %{{.*}}) -> (f32)
// CHECK:           } else {
// CHECK-NEXT:        %[[X:.*]] = tensor.extract
// CHECK-NEXT:        arith.subf %[[X]], %[[OLD]] : f32
func.func @alternating(%a: tensor<?xf32>) -> tensor<f32> {
  %b = moa.reduce sub %a : tensor<?xf32> -> tensor<f32>
  func.return %b : tensor<f32>
}

// A product inside is an operation of its own: nothing of it is computed twice.

// CHECK-LABEL: func.func @chain(
// CHECK-SAME:    %[[A:.*]]: tensor<2x3xf32>, %[[B:.*]]: tensor<3x4xf32>, %[[C:.*]]: tensor<4x5xf32>)
// CHECK:         %[[AB:.*]] = linalg.generic {{.*}} ["parallel", "parallel", "reduction"]} ins(%[[A]], %[[B]] :
// CHECK:         linalg.generic {{.*}} ["parallel", "parallel", "reduction"]} ins(%[[AB]], %[[C]] :
func.func @chain(%a: tensor<2x3xf32>, %b: tensor<3x4xf32>, %c: tensor<4x5xf32>) -> tensor<2x5xf32> {
  %0 = moa.inner add mul %a, %b : tensor<2x3xf32>, tensor<3x4xf32> -> tensor<2x4xf32>
  %1 = moa.inner add mul %0, %c : tensor<2x4xf32>, tensor<4x5xf32> -> tensor<2x5xf32>
  func.return %1 : tensor<2x5xf32>
}

// Preconditions that types leave open are asserted, unless the caller vouches.

// CHECK-LABEL: func.func @checked(
// CHECK-DAG:     %[[N:.*]] = tensor.dim %a
// CHECK-DAG:     %[[M:.*]] = tensor.dim %b
// CHECK:         %[[SAME:.*]] = arith.cmpi eq, %[[M]], %[[N]] : index
// CHECK-NEXT:    cf.assert %[[SAME]], "add: extents of axis 0 must be equal
// TRUST-LABEL: func.func @checked(
// TRUST-NOT:     cf.assert
func.func @checked(%a: tensor<?xf32>, %b: tensor<?xf32>) -> tensor<?xf32> {
  %c = moa.pointwise add %a, %b : tensor<?xf32>, tensor<?xf32> -> tensor<?xf32>
  func.return %c : tensor<?xf32>
}

// Functions of other dialects are left alone.

// CHECK-LABEL: func.func @other(
// CHECK-NEXT:    tensor.extract_slice
func.func @other(%a: tensor<6xf32>) -> tensor<3xf32> {
  %b = tensor.extract_slice %a[1] [3] [1] : tensor<6xf32> to tensor<3xf32>
  func.return %b : tensor<3xf32>
}
