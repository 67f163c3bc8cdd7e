// RUN: moa-opt %s -p moa-to-dnf > %t.once
// RUN: moa-opt %s -p moa-to-dnf,moa-to-dnf > %t.twice
// RUN: diff %t.once %t.twice
// RUN: filecheck %s < %t.twice

// A normal form is its own normal form.

// CHECK-LABEL: func.func @normal_form_of_a_normal_form(
func.func @normal_form_of_a_normal_form(%p: tensor<2xindex>, %a: tensor<?x?xf64>, %b: tensor<?x?xf64>) -> (tensor<?x?xf64>, tensor<f64>) {
  %c = moa.inner add mul %a, %b : tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
  %x = moa.psi %p, %c : tensor<2xindex>, tensor<?x?xf64> -> tensor<f64>
  %d = moa.pointwise sub %c, %x : tensor<?x?xf64>, tensor<f64> -> tensor<?x?xf64>
  func.return %d, %x : tensor<?x?xf64>, tensor<f64>
}
// CHECK:         moa.require
// CHECK:         moa.comprehension
// CHECK:           moa.in_bounds
// CHECK:         moa.comprehension
// CHECK-NOT:     moa.comprehension
