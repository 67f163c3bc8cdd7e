// RUN: moa-opt %s -p 'moa-to-dnf,moa-sink,moa-lift{target=nvptx}' | filecheck %s
// RUN: moa-opt %s -p 'moa-to-dnf,moa-sink,moa-lift{target=nvptx shared_bytes=65536}' | filecheck %s --check-prefix=LESS
// RUN: not moa-opt %s -p 'moa-to-dnf,moa-sink,moa-lift{target=nvptx shared_bytes=65536 schedule="j=grid,block:64;i=grid,warps:4,regs:2;p=chunk:32,stages:2,mma"}' 2>&1 | filecheck %s --check-prefix=GIVEN

// Tiles of 64 rows and of 64 columns: with less memory for them there is one chunk at
// a time. A schedule that is given is kept, or refused.
// CHECK-LABEL: @product
// CHECK:       moa.schedule = "j=grid,block:64;i=grid,warps:4,regs:2;p=chunk:32,stages:2,mma,tall:4"
// LESS-LABEL:  @product
// LESS:        moa.schedule = "j=grid,block:64;i=grid,warps:4,regs:2;p=chunk:32,stages:1,mma,tall:4"
// GIVEN:       schedule: expected at most 65536 bytes of shared memory, got 71680
func.func @product(%a: tensor<64x512xf64>, %b: tensor<512x64xf64>) -> tensor<64x64xf64> {
  %r = moa.inner add mul %a, %b : tensor<64x512xf64>, tensor<512x64xf64> -> tensor<64x64xf64>
  func.return %r : tensor<64x64xf64>
}
