// RUN: moa-opt %s -p 'moa-to-dnf{trace=true}' | filecheck %s

// The trace names each law where it is applied, outermost operation first.

// CHECK:      // moa-to-dnf @trace
// CHECK-NEXT: //   psi-map: `i ψ (f A) = f (i ψ A)`.
// CHECK-NEXT: //   psi-reduce: `i ψ (f red A) = f fold_(k < s0) ((<k> ++ i) ψ A)`.
// CHECK-NEXT: //   psi-transpose: `i ψ (t ⊘ A) = i[t] ψ A`: source axis k is result axis t[k].
// CHECK-NEXT: builtin.module
func.func @trace(%a: tensor<3x4xf64>) -> tensor<3xf64> {
  %t = moa.transpose %a : tensor<3x4xf64> -> tensor<4x3xf64>
  %s = moa.reduce add %t : tensor<4x3xf64> -> tensor<3xf64>
  %e = moa.map exp %s : tensor<3xf64> -> tensor<3xf64>
  func.return %e : tensor<3xf64>
}
