// RUN: moa-opt %s -p "moa-infer-shapes,moa-to-dnf,moa-to-onf,moa-split-loops,moa-fold-addresses" --split-input-file | filecheck %s

// (x / n) n + (x % n) = x: a whole array in another shape is one strided copy.
// CHECK-LABEL: func.func @ravel(
func.func @ravel(%a: tensor<4x6x3xf64>) -> tensor<72xf64> {
  %b = moa.ravel %a : tensor<4x6x3xf64> -> tensor<72xf64>
  func.return %b : tensor<72xf64>
}
// CHECK:      %[[ONE:.*]] = arith.constant 1 : index
// CHECK:      moa.loop [%[[I:.*]] = %[[ZERO:.*]] to %{{.*}} by 1] {
// CHECK-NEXT:   %[[X:.*]] = moa.load %{{.*}}[%[[ZERO]], %[[I]] * %[[ONE]]]
// CHECK-NEXT:   moa.store %[[X]], %{{.*}}[%[[ZERO]], %[[I]] * %[[ONE]]]
// CHECK-NOT:  arith.remui

// -----

// The elements of a transposed array are not in order: the division stays.
// CHECK-LABEL: func.func @ravel_of_transpose(
func.func @ravel_of_transpose(%a: tensor<4x6xf64>) -> tensor<24xf64> {
  %t = moa.transpose %a : tensor<4x6xf64> -> tensor<6x4xf64>
  %b = moa.ravel %t : tensor<6x4xf64> -> tensor<24xf64>
  func.return %b : tensor<24xf64>
}
// CHECK:      moa.loop [%[[I:.*]] = %{{.*}} to %{{.*}} by 1] {
// CHECK-DAG:    %[[REMAINDER:.*]] = arith.remui %[[I]]
// CHECK-DAG:    %[[QUOTIENT:.*]] = arith.divui %[[I]]
// CHECK:        moa.load %{{.*}}[%{{.*}}, %[[REMAINDER]] * %{{.*}}, %[[QUOTIENT]] * %{{.*}}]

// -----

// A row of a reversed array: the start is counted from the end, the stride is that of A.
// CHECK-LABEL: func.func @row_of_reverse(
func.func @row_of_reverse(%a: tensor<?x6xf64>) -> tensor<6xf64> {
  %r = moa.reverse %a : tensor<?x6xf64> -> tensor<?x6xf64>
  %i = moa.constant dense<1> : tensor<1xindex>
  %b = moa.psi %i, %r : tensor<1xindex>, tensor<?x6xf64> -> tensor<6xf64>
  func.return %b : tensor<6xf64>
}
// CHECK:      moa.loop [%[[I:.*]] = %{{.*}} to %{{.*}} by 1] {
// CHECK-NEXT:   moa.load %{{.*}}[%{{.*}}, %[[I]] * %{{.*}}]
