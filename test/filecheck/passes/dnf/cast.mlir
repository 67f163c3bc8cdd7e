// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ (cast A) = cast (i ψ A)

// CHECK-LABEL: func.func @psi_of_cast_to_float(
// CHECK-SAME:    %[[A:.*]]: tensor<3xi32>)
func.func @psi_of_cast_to_float(%a: tensor<3xi32>) -> tensor<3xf64> {
  %b = moa.cast %a : tensor<3xi32> -> tensor<3xf64>
  func.return %b : tensor<3xf64>
}
// CHECK:       %[[X:.*]] = moa.at %[[A]][
// CHECK-NEXT:  %[[Y:.*]] = arith.sitofp %[[X]] : i32 to f64
// CHECK-NEXT:  moa.yield %[[Y]] : f64

// An index goes by way of a number of fixed width.
// CHECK-LABEL: func.func @psi_of_cast_from_index(
func.func @psi_of_cast_from_index(%a: tensor<3xindex>) -> tensor<3xf32> {
  %b = moa.cast %a : tensor<3xindex> -> tensor<3xf32>
  func.return %b : tensor<3xf32>
}
// CHECK:       %[[X:.*]] = arith.index_cast %{{.*}} : index to i64
// CHECK-NEXT:  arith.sitofp %[[X]] : i64 to f32

// A number is true unless it is zero.
// CHECK-LABEL: func.func @psi_of_cast_to_truth(
func.func @psi_of_cast_to_truth(%a: tensor<3xf64>) -> tensor<3xi1> {
  %b = moa.cast %a : tensor<3xf64> -> tensor<3xi1>
  func.return %b : tensor<3xi1>
}
// CHECK:       %[[X:.*]] = moa.at
// CHECK-NEXT:  %[[ZERO:.*]] = arith.constant 0.000000e+00 : f64
// CHECK-NEXT:  arith.cmpf une, %[[X]], %[[ZERO]] : f64
