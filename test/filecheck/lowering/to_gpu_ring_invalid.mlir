// RUN: not moa-opt %s -p 'moa-lift{target=nvptx schedule="j=grid,block:32;i=grid,warps:4,regs:2;p=chunk:32,stages:2,wgmma,tma"}' 2>&1 | filecheck %s
// RUN: not moa-opt %s -p 'moa-lift{target=nvptx engine=false schedule="j=grid,block:32;i=grid,warps:4,regs:2;p=chunk:32,stages:2,wgmma,tma"}' 2>&1 | filecheck %s --check-prefix=CHIP
// RUN: not moa-opt %s -p 'moa-lift{target=nvptx tier=mma schedule="j=grid,block:32;i=grid,warps:4,regs:2;p=chunk:32,stages:2,wgmma"}' 2>&1 | filecheck %s --check-prefix=TIER

// The terms of a sum end at another index for each h; what the arrays have beyond is
// not zero, and the copy engine would bring it.

// CHECK: schedule: tma: expected sums that end where the array does, or at a number that the call gives
// CHIP:  schedule: tma: expected a chip from sm_90 on
// TIER:  schedule: wgmma: expected at most the tier mma
func.func @leading(%a: tensor<8x64x64xbf16>, %b: tensor<8x64x32xbf16>) -> tensor<8x64x32xf32> {
  %0 = moa.extent %a, 0 : tensor<8x64x64xbf16>
  %1 = moa.extent %a, 1 : tensor<8x64x64xbf16>
  %2 = moa.extent %b, 2 : tensor<8x64x32xbf16>
  %3 = arith.constant 0 : index
  %4 = arith.constant 5 : index
  %r = moa.comprehension [%h < %0, %i < %1, %j < %2] -> tensor<8x64x32xf32> {
    %end = arith.muli %h, %4 : index
    %s = moa.fold add [%p = %3 to %end] -> f32 {
      %5 = moa.at %a[%h, %i, %p] : tensor<8x64x64xbf16>
      %6 = arith.extf %5 : bf16 to f32
      %7 = moa.at %b[%h, %p, %j] : tensor<8x64x32xbf16>
      %8 = arith.extf %7 : bf16 to f32
      %9 = arith.mulf %6, %8 : f32
      moa.yield %9 : f32
    }
    moa.yield %s : f32
  }
  func.return %r : tensor<8x64x32xf32>
}
