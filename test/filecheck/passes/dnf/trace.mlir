// RUN: moa-opt %s -p 'moa-to-dnf{trace=true}' | filecheck %s
// RUN: moa-opt %s -p 'moa-to-dnf{trace=true ascii=true}' | filecheck %s --check-prefix=ASCII

// The trace is a derivation on paper: the definition, each step as an equation with the
// name of its law, the normal form. Functions come before those that they name.

// What is computed for an index has a name if it is long.
// CHECK:      // moa-to-dnf @computed
// CHECK:      //   1. psi-rotate: <i> ψ O
// CHECK-NEXT: //        where
// CHECK:      //   normal form:
func.func @computed(%k: tensor<i64>, %a: tensor<?xf64>) -> tensor<?xf64> {
  %r = moa.rotate %k, %a : tensor<i64>, tensor<?xf64> -> tensor<?xf64>
  func.return %r : tensor<?xf64>
}

// What is used twice has a name too; a cell is psi with a part of the index.
// CHECK:      // moa-to-dnf @shifted_scores
// CHECK-NEXT: //   shifted_scores(q ^ <n m>, k ^ <d m>) → O ^ <n d>:
// CHECK-NEXT: //     s = q +•× ⊘k
// CHECK-NEXT: //     O = s -Ω<1 0> ((⌈ red) Ω<1> s)
// CHECK-NEXT: //   ∀ 0 ≤ <i j> < <n d>: <i j> ψ O
// CHECK-NEXT: //   1. psi-omega: <i j> ψ O = <i j> ψ (s -Ω<1 0> ((⌈ red) Ω<1> s)) = <i j> ψ s - <i> ψ ((⌈ red) Ω<1> s)
// CHECK-NEXT: //   2. psi-inner: <i j> ψ s = <i j> ψ (q +•× ⊘k) = + fold_{p<m} (<i p> ψ q × <p j> ψ ⊘k)
// CHECK-NEXT: //   3. psi-transpose: <p j> ψ ⊘k = <j p> ψ k
// CHECK-NEXT: //   4. psi-omega: <i> ψ ((⌈ red) Ω<1> s) = ⌈ red <i> ψ s
// CHECK-NEXT: //   5. psi-reduce: ⌈ red <i> ψ s = ⌈ fold_{p<d} (<p> ψ (<i> ψ s))
// CHECK-NEXT: //   6. psi-cell: <p> ψ (<i> ψ s) = <i p> ψ s
// CHECK-NEXT: //   7. psi-inner: <i p> ψ s = <i p> ψ (q +•× ⊘k) = + fold_{l<m} (<i l> ψ q × <l p> ψ ⊘k)
// CHECK-NEXT: //   8. psi-transpose: <l p> ψ ⊘k = <p l> ψ k
// CHECK-NEXT: //   normal form:
// CHECK-NEXT: //   shifted_scores(q ^ <n m>, k ^ <d m>) → O ^ <n d>:
// CHECK-NEXT: //     ∀ 0 ≤ <i j> < <n d>: <i j> ψ O =
// CHECK-NEXT: //       (+ fold_{p<m} (<i p> ψ q × <j p> ψ k)) - (⌈ fold_{p<d} (+ fold_{l<m} (<i l> ψ q × <p l> ψ k)))
func.func @shifted_scores(%q: tensor<?x?xf64>, %k: tensor<?x?xf64>) -> tensor<?x?xf64> {
  %kt = moa.transpose %k : tensor<?x?xf64> -> tensor<?x?xf64>
  %s = moa.inner add mul %q, %kt : tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
  %m = moa.omega @maximum <1> (%s) : (tensor<?x?xf64>) -> tensor<?xf64>
  %o = moa.omega sub <1, 0> (%s, %m) : (tensor<?x?xf64>, tensor<?xf64>) -> tensor<?x?xf64>
  func.return %o : tensor<?x?xf64>
}

// Of a cell function nothing is left: it has no derivation of its own.
// CHECK-NOT:  @maximum
func.func private @maximum(%row: tensor<?xf64>) -> tensor<f64> {
  %m = moa.reduce max %row : tensor<?xf64> -> tensor<f64>
  func.return %m : tensor<f64>
}

// CHECK:      // moa-to-dnf @short
// CHECK-NEXT: //   short(a ^ <3 4>) → O ^ <3>:
// CHECK-NEXT: //     O = exp(+ red ⊘a)
// CHECK-NEXT: //   ∀ 0 ≤ <i> < <3>: <i> ψ O
// CHECK-NEXT: //   1. psi-map: <i> ψ O = <i> ψ exp(+ red ⊘a) = exp(<i> ψ (+ red ⊘a))
// CHECK-NEXT: //   2. psi-reduce: <i> ψ (+ red ⊘a) = + fold_{p<4} (<p i> ψ ⊘a)
// CHECK-NEXT: //   3. psi-transpose: <p i> ψ ⊘a = <i p> ψ a
// CHECK-NEXT: //   normal form:
// CHECK-NEXT: //   short(a ^ <3 4>) → O ^ <3>:
// CHECK-NEXT: //     ∀ 0 ≤ <i> < <3>: <i> ψ O = exp(+ fold_{p<4} (<i p> ψ a))
// CHECK-NEXT: builtin.module

// ASCII:      // moa-to-dnf @short
// ASCII-NEXT: //   short(a ^ <3 4>) -> O ^ <3>:
// ASCII-NEXT: //     O = exp(+ red tran a)
// ASCII-NEXT: //   forall 0 <= <i> < <3>: <i> psi O
// ASCII-NEXT: //   1. psi-map: <i> psi O = <i> psi exp(+ red tran a) = exp(<i> psi (+ red tran a))
func.func @short(%a: tensor<3x4xf64>) -> tensor<3xf64> {
  %t = moa.transpose %a : tensor<3x4xf64> -> tensor<4x3xf64>
  %s = moa.reduce add %t : tensor<4x3xf64> -> tensor<3xf64>
  %e = moa.map exp %s : tensor<3xf64> -> tensor<3xf64>
  func.return %e : tensor<3xf64>
}
