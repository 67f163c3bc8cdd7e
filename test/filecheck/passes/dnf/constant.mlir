// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ C is a scalar constant where the element is known, else an element of the program.

// Every element of a splat is known, whatever the index.
// CHECK-LABEL: func.func @psi_of_a_splat(
func.func @psi_of_a_splat() -> tensor<2x3xf64> {
  %c = moa.constant dense<1.5> : tensor<2x3xf64>
  func.return %c : tensor<2x3xf64>
}
// CHECK-NOT:   moa.constant
// CHECK-DAG:   %[[N:.*]] = moa.fixed_extent 2
// CHECK-DAG:   %[[M:.*]] = moa.fixed_extent 3
// CHECK:       moa.comprehension [%{{.*}} < %[[N]], %{{.*}} < %[[M]]] -> tensor<2x3xf64>
// CHECK-NEXT:    %[[X:.*]] = arith.constant 1.500000e+00 : f64
// CHECK-NEXT:    moa.yield %[[X]] : f64

// So is the element at an index of constants.
// CHECK-LABEL: func.func @psi_of_a_constant_at_a_constant_index(
func.func @psi_of_a_constant_at_a_constant_index() -> tensor<f64> {
  %c = moa.constant dense<[[1.0, 2.0], [3.0, 4.0]]> : tensor<2x2xf64>
  %i = moa.constant dense<[1, 0]> : tensor<2xindex>
  %x = moa.psi %i, %c : tensor<2xindex>, tensor<2x2xf64> -> tensor<f64>
  func.return %x : tensor<f64>
}
// CHECK-NOT:   moa.at
// CHECK:       moa.comprehension [] -> tensor<f64>
// CHECK:         %[[X:.*]] = arith.constant 3.000000e+00 : f64
// CHECK-NEXT:    moa.yield %[[X]] : f64

// At any other index the constant stays, as an argument would.
// CHECK-LABEL: func.func @psi_of_a_constant(
func.func @psi_of_a_constant() -> tensor<2x2xf64> {
  %c = moa.constant dense<[[1.0, 2.0], [3.0, 4.0]]> : tensor<2x2xf64>
  func.return %c : tensor<2x2xf64>
}
// CHECK:       %[[C:.*]] = moa.constant dense<{{.*}}> : tensor<2x2xf64>
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] ->
// CHECK-NEXT:    %[[X:.*]] = moa.at %[[C]][%[[I]], %[[J]]]
// CHECK-NEXT:    moa.yield %[[X]] : f64
