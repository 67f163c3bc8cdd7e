// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// A call is what the called function is: it is inlined, innermost included.

// CHECK-LABEL: func.func @call(
// CHECK-SAME:    %[[A:.*]]: tensor<3xf64>)
func.func @call(%a: tensor<3xf64>) -> tensor<3xf64> {
  %b = func.call @twice(%a) : (tensor<3xf64>) -> tensor<3xf64>
  func.return %b : tensor<3xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<3xf64>
// CHECK-NEXT:    %[[X:.*]] = moa.at %[[A]][%[[I]]]
// CHECK-NEXT:    %[[ONCE:.*]] = math.exp %[[X]] : f64
// CHECK-NEXT:    %[[TWICE:.*]] = math.exp %[[ONCE]] : f64
// CHECK-NEXT:    moa.yield %[[TWICE]] : f64

// A function that was only called, and is private, disappears.
// CHECK-NOT:   func.func
func.func private @twice(%a: tensor<3xf64>) -> tensor<3xf64> {
  %b = func.call @once(%a) : (tensor<3xf64>) -> tensor<3xf64>
  %c = func.call @once(%b) : (tensor<3xf64>) -> tensor<3xf64>
  func.return %c : tensor<3xf64>
}
func.func private @once(%a: tensor<3xf64>) -> tensor<3xf64> {
  %b = moa.map exp %a : tensor<3xf64> -> tensor<3xf64>
  func.return %b : tensor<3xf64>
}
