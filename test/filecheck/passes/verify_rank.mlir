// RUN: moa-opt %s -p 'moa-to-dnf{certify=true},moa-verify' | filecheck %s
// RUN: not moa-opt %s -p 'moa-to-dnf{certify=true},moa-verify{prove=true}' 2>&1 | filecheck %s --check-prefix=PROVE

// The proofs go up to rank 4. A derivation says where a law was applied beyond that, and
// does not count as proved.

// CHECK: "psi-reduce/rank4/in-bounds"{{.*}}unproved = ["psi-reduce/rank5"]
// PROVE: moa-opt: @f: psi-reduce was applied at rank 5: expected a rank up to 4, beyond there are no proofs
func.func @f(%a: tensor<2x1x2x1x2xf64>) -> tensor<1x2x1x2xf64> {
  %r = moa.reduce add %a : tensor<2x1x2x1x2xf64> -> tensor<1x2x1x2xf64>
  func.return %r : tensor<1x2x1x2xf64>
}
