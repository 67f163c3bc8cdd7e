// RUN: sed -n '/^\/\/ BOUND/,/^\/\/ -----/p' %s | not moa-opt -p 'moa-lift{target=nvptx schedule="h=grid,cluster:2;j=grid,block:32;i=grid,warps:4,regs:2;p=chunk:32,stages:2,wgmma,tma"}' 2>&1 | filecheck %s --check-prefix=BOUND
// RUN: sed -n '/^\/\/ BOUND/,/^\/\/ -----/p' %s | not moa-opt -p 'moa-lift{target=nvptx engine=false schedule="h=grid,cluster:2;i=grid,warps:4,regs:2;p=chunk:32,stages:2,wgmma,tma"}' 2>&1 | filecheck %s --check-prefix=CHIP
// RUN: sed -n '/^\/\/ -----/,$p' %s | not moa-opt -p 'moa-nvvm{chip=sm_80}' 2>&1 | filecheck %s --check-prefix=OLD
// RUN: sed -n '/^\/\/ -----/,$p' %s | not moa-opt -p moa-rocdl 2>&1 | filecheck %s --check-prefix=AMD
// RUN: sed -n '/^\/\/ -----/,$p' %s | not moa-opt -p moa-spirv 2>&1 | filecheck %s --check-prefix=SPIRV

// Groups of other h have other chunks: they cannot be a cluster.
// BOUND: schedule: cluster: expected folds whose bounds do not depend on h
// CHIP:  schedule: cluster: expected a chip from sm_90 on
func.func @leading(%a: tensor<8x64x64xbf16>, %b: tensor<64x32xbf16>) -> tensor<8x64x32xf32> {
  %0 = moa.extent %a, 0 : tensor<8x64x64xbf16>
  %1 = moa.extent %a, 1 : tensor<8x64x64xbf16>
  %2 = moa.extent %b, 1 : tensor<64x32xbf16>
  %3 = arith.constant 0 : index
  %4 = arith.constant 5 : index
  %r = moa.comprehension [%h < %0, %i < %1, %j < %2] -> tensor<8x64x32xf32> {
    %end = arith.muli %h, %4 : index
    %s = moa.fold add [%p = %3 to %end] -> f32 {
      %5 = moa.at %a[%h, %i, %p] : tensor<8x64x64xbf16>
      %6 = arith.extf %5 : bf16 to f32
      %7 = moa.at %b[%p, %j] : tensor<64x32xbf16>
      %8 = arith.extf %7 : bf16 to f32
      %9 = arith.mulf %6, %8 : f32
      moa.yield %9 : f32
    }
    moa.yield %s : f32
  }
  func.return %r : tensor<8x64x32xf32>
}

// -----

// A kernel with clusters, for what has none.
// OLD:   clusters of blocks: expected a chip from sm_90 on, got sm_80
// AMD:   clusters of blocks: expected a chip from sm_90 on, got gfx942
// SPIRV: clusters of blocks: expected a chip from sm_90 on, got SPIR-V
"gpu.module"() <{sym_name = "kernels"}> ({
  "gpu.func"() <{function_type = () -> ()}> ({
    "gpu.return"() : () -> ()
  }) {sym_name = "kernel", gpu.kernel, nvvm.cluster_dim = array<i32: 2, 1, 1>} : () -> ()
}) : () -> ()
