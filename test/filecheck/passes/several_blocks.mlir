// A function of several blocks that has no operation of moa is another compiler's: all
// passes leave it as it is.

// RUN: moa-opt %s -p moa-infer-shapes,moa-to-dnf,moa-check-dnf,moa-to-onf,moa-to-scf,moa-outline-kernels | filecheck %s
// RUN: moa-opt %s -p moa-to-dnf,moa-analyze-cost | filecheck %s
// RUN: echo "func.func @f(%%x: tensor<3xf64>) { %%y = moa.map exp %%x : tensor<3xf64> -> tensor<3xf64> cf.br ^bb1 ^bb1: func.return }" | not moa-opt -p moa-to-scf 2>&1 | filecheck %s --check-prefix OURS

// CHECK-LABEL: func.func @other
// CHECK-NEXT:    cf.cond_br %c, ^[[THEN:.*]], ^[[ELSE:.*]]
// CHECK:         func.return %x : tensor<3xf64>
// CHECK:         func.return %x : tensor<3xf64>

// OURS: moa-opt: function @f: expected one block, got 2

func.func @other(%x: tensor<3xf64>, %c: i1) -> tensor<3xf64> {
  cf.cond_br %c, ^bb1, ^bb2
^bb1:
  func.return %x : tensor<3xf64>
^bb2:
  func.return %x : tensor<3xf64>
}

func.func @exponential(%x: tensor<3xf64>) -> tensor<3xf64> {
  %y = moa.map exp %x : tensor<3xf64> -> tensor<3xf64>
  func.return %y : tensor<3xf64>
}
