// RUN: moa-opt %s -p moa-to-dnf,moa-check-dnf | filecheck %s

// Each result has a comprehension of its own, over its own index space.

// CHECK-LABEL: func.func @several_results(
// CHECK-SAME:    %[[A:.*]]: tensor<3x4xf64>) -> (tensor<3x4xf64>, tensor<4xf64>)
func.func @several_results(%a: tensor<3x4xf64>) -> (tensor<3x4xf64>, tensor<4xf64>) {
  %e = moa.map exp %a : tensor<3x4xf64> -> tensor<3x4xf64>
  %s = moa.reduce add %e : tensor<3x4xf64> -> tensor<4xf64>
  func.return %e, %s : tensor<3x4xf64>, tensor<4xf64>
}
// CHECK:       %[[E:.*]] = moa.comprehension [%{{.*}} < %{{.*}}, %{{.*}} < %{{.*}}] -> tensor<3x4xf64>
// CHECK:       %[[S:.*]] = moa.comprehension [%{{.*}} < %{{.*}}] -> tensor<4xf64>
// CHECK-NEXT:    moa.fold add
// CHECK-NEXT:      moa.at %[[A]][
// CHECK-NEXT:      math.exp
// CHECK:       func.return %[[E]], %[[S]] :

// The copy of an argument is a result like any other.
// CHECK-LABEL: func.func @argument_as_result(
// CHECK-SAME:    %[[A:.*]]: tensor<3xf64>)
func.func @argument_as_result(%a: tensor<3xf64>) -> tensor<3xf64> {
  func.return %a : tensor<3xf64>
}
// CHECK:       %[[B:.*]] = moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<3xf64>
// CHECK-NEXT:    moa.at %[[A]][%[[I]]]
// CHECK:       func.return %[[B]] :
