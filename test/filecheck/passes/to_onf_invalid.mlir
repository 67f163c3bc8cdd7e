// RUN: moa-opt %s -p moa-to-onf --verify-diagnostics | filecheck %s
// RUN: moa-opt %s -p 'moa-to-onf{layout=diagonal}' --verify-diagnostics | filecheck %s --check-prefix=LAYOUT

// LAYOUT: moa-to-onf: unknown layout: expected row or column, got diagonal

func.func @scalar_result(%a: tensor<3xf64>) -> f64 {
  %zero = arith.constant 0 : index
  %x = moa.at %a[%zero] : tensor<3xf64>
  func.return %x : f64
}
// CHECK: @scalar_result: expected arrays as results, got f64
