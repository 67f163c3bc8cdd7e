// The tools of xDSL find the dialect, the passes and the notation where moa is installed.

// RUN: xdsl-opt %s | filecheck %s
// RUN: xdsl-opt %s -p moa-to-dnf | filecheck %s --check-prefix DNF
// RUN: xdsl-opt %s -t moa | filecheck %s --check-prefix NOTATION
// RUN: moa-opt --version | filecheck %s --check-prefix VERSION

// CHECK: moa.map exp %{{.*}} : tensor<?xf64> -> tensor<?xf64>

// DNF: moa.comprehension
// DNF-NOT: moa.map

// NOTATION:      exponential(a ^ <n>) → b ^ <n>:
// NOTATION-NEXT:   b = exp(a)

// VERSION: moa-opt {{[0-9.]+}} (xdsl {{[0-9.]+}})

func.func @exponential(%a: tensor<?xf64>) -> tensor<?xf64> {
  %b = moa.map exp %a : tensor<?xf64> -> tensor<?xf64>
  func.return %b : tensor<?xf64>
}
