// RUN: moa-opt %s -t moa | filecheck %s
// RUN: moa-opt %s -t 'moa{ascii=true}' | filecheck %s --check-prefix ASCII
// RUN: moa-opt %s -p moa-to-dnf -t moa | filecheck %s --check-prefix DNF
// RUN: moa-opt %s -p moa-to-dnf,moa-share,moa-sink -t moa | filecheck %s --check-prefix SUNK

// Two uses give a value a line; one use does not. Extents that must be equal have one
// letter. A private cell function of one operation is written in place.

// CHECK:      attention(Q ^ <n m>, K ^ <d m>, V ^ <d e>) → O ^ <n e>:
// CHECK-NEXT:   S = 0.125 × (Q +•× ⊘K)
// CHECK-NEXT:   P = exp(S -Ω<1 0> ((⌈ red) Ω<1> S))
// CHECK-NEXT:   O = (P ÷Ω<1 0> ((+ red) Ω<1> P)) +•× V
// CHECK-NOT:  maximum

// ASCII:      attention(Q ^ <n m>, K ^ <d m>, V ^ <d e>) -> O ^ <n e>:
// ASCII-NEXT:   S = 0.125 * (Q +.* tran K)
// ASCII-NEXT:   P = exp(S - omega<1 0> ((max red) omega<1> S))
// ASCII-NEXT:   O = (P / omega<1 0> ((+ red) omega<1> P)) +.* V

// Each element of the result says everything it needs.

// DNF:      attention(Q ^ <n m>, K ^ <d m>, V ^ <d e>) → O ^ <n e>:
// DNF-NEXT:   ∀ 0 ≤ <[[I:.]] [[L:.]]> < <n e>: <[[I]] [[L]]> ψ O = + fold_{[[P:.]]<d} (
// DNF:          (exp(0.125 × (+ fold_{[[K:.]]<m} (<[[I]] [[K]]> ψ Q × <[[P]] [[K]]> ψ K)) - {{.*}})
// DNF:            × <[[P]] [[L]]> ψ V
// DNF-NEXT:   )

// What does not depend on an index is not under it.

// SUNK:      attention(Q ^ <n m>, K ^ <d m>, V ^ <d e>) → O ^ <n e>:
// SUNK-NEXT:   ∀ 0 ≤ <[[I:.]]> < <n>:
// SUNK-NEXT:     let [[M:.]] = ⌈ fold_{[[P:.]]<d} (0.125 × (+ fold_{[[K:.]]<m} (<[[I]] [[K]]> ψ Q × <[[P]] [[K]]> ψ K)))
// SUNK:          <[[I]]> ψ O = + fold_{[[P:.]]<d} (
// SUNK:            ∀ 0 ≤ <[[L:.]]> < <e>: {{.*}} × <[[P]] [[L]]> ψ V
// SUNK-NEXT:     )

func.func @attention(%Q: tensor<?x?xf64>, %K: tensor<?x?xf64>, %V: tensor<?x?xf64>) -> tensor<?x?xf64> {
  %s = moa.constant dense<0.125> : tensor<f64>
  %Kt = moa.transpose %K : tensor<?x?xf64> -> tensor<?x?xf64>
  %X = moa.inner add mul %Q, %Kt : tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
  %S = moa.pointwise mul %s, %X : tensor<f64>, tensor<?x?xf64> -> tensor<?x?xf64>
  %M = moa.omega @maximum <1> (%S) : (tensor<?x?xf64>) -> tensor<?xf64>
  %C = moa.omega sub <1, 0> (%S, %M) : (tensor<?x?xf64>, tensor<?xf64>) -> tensor<?x?xf64>
  %P = moa.map exp %C : tensor<?x?xf64> -> tensor<?x?xf64>
  %D = moa.omega @total <1> (%P) : (tensor<?x?xf64>) -> tensor<?xf64>
  %W = moa.omega div <1, 0> (%P, %D) : (tensor<?x?xf64>, tensor<?xf64>) -> tensor<?x?xf64>
  %O = moa.inner add mul %W, %V : tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
  func.return %O : tensor<?x?xf64>
}

func.func private @maximum(%row: tensor<?xf64>) -> tensor<f64> {
  %m = moa.reduce max %row : tensor<?xf64> -> tensor<f64>
  func.return %m : tensor<f64>
}

func.func private @total(%row: tensor<?xf64>) -> tensor<f64> {
  %d = moa.reduce add %row : tensor<?xf64> -> tensor<f64>
  func.return %d : tensor<f64>
}

// Any other function is defined before it is used.

// CHECK:      later(ij ^ <2>) → c ^ <>:
// CHECK-NEXT:   c = <1> ψ ij > <0> ψ ij
// CHECK:      causal(A ^ <3 4>) → B ^ <3 4>:
// CHECK-NEXT:   B = where(later Ω<1> ιρA, -∞, A)

// ASCII:      later(ij ^ <2>) -> c ^ <>:
// ASCII-NEXT:   c = <1> psi ij > <0> psi ij
// ASCII:      causal(A ^ <3 4>) -> B ^ <3 4>:
// ASCII-NEXT:   B = where(later omega<1> iota rho A, -inf, A)

// DNF:      causal(A ^ <3 4>) → O ^ <3 4>:
// DNF:        ∀ 0 ≤ <[[I:.]] [[J:.]]> < <3 4>: <[[I]] [[J]]> ψ O = where([[J]] > [[I]], -∞, <[[I]] [[J]]> ψ A)

func.func @causal(%A: tensor<3x4xf64>) -> tensor<3x4xf64> {
  %r = moa.shape %A : tensor<3x4xf64> -> tensor<2xindex>
  %i = moa.iota %r : tensor<2xindex> -> tensor<3x4x2xindex>
  %later = moa.omega @later <1> (%i) : (tensor<3x4x2xindex>) -> tensor<3x4xi1>
  %lowest = moa.constant dense<0xFFF0000000000000> : tensor<f64>
  %B = moa.where %later, %lowest, %A : tensor<3x4xi1>, tensor<f64>, tensor<3x4xf64> -> tensor<3x4xf64>
  func.return %B : tensor<3x4xf64>
}

func.func private @later(%ij: tensor<2xindex>) -> tensor<i1> {
  %0 = moa.constant dense<0> : tensor<1xindex>
  %1 = moa.constant dense<1> : tensor<1xindex>
  %i = moa.psi %0, %ij : tensor<1xindex>, tensor<2xindex> -> tensor<index>
  %j = moa.psi %1, %ij : tensor<1xindex>, tensor<2xindex> -> tensor<index>
  %c = moa.pointwise gt %j, %i : tensor<index>, tensor<index> -> tensor<i1>
  func.return %c : tensor<i1>
}
