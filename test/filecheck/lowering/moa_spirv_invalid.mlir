// RUN: sed -n '/BF16:/,/^\/\/ -----/p' %s | not moa-opt -p moa-spirv 2>&1 | filecheck %s --check-prefix=BF16
// RUN: sed -n '/^\/\/ -----/,$p' %s | not moa-opt -p moa-spirv 2>&1 | filecheck %s --check-prefix=ATOMIC

// BF16: moa-spirv: expected f16, f32, f64 or integers, got bf16, which SPIR-V 1.4 does not have
func.func @negated(%a: tensor<8xbf16>) -> tensor<8xbf16> {
  %n = moa.extent %a, 0 : tensor<8xbf16>
  %s = moa.comprehension [%i < %n] -> tensor<8xbf16> {
    %x = moa.at %a[%i] : tensor<8xbf16>
    %y = arith.negf %x : bf16
    moa.yield %y : bf16
  }
  func.return %s : tensor<8xbf16>
}

// -----

// A check of an index in data takes an atomic operation, of which there is none.
// ATOMIC: moa-spirv: upstream does not convert a kernel: failed to legalize operation 'memref.atomic_rmw'
func.func @row(%p: tensor<1xindex>, %a: tensor<30x20xf32>) -> tensor<20xf32> {
  %r = moa.psi %p, %a : tensor<1xindex>, tensor<30x20xf32> -> tensor<20xf32>
  func.return %r : tensor<20xf32>
}
