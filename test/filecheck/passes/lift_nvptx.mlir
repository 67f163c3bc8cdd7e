// RUN: moa-opt %s -p 'moa-to-dnf,moa-sink,moa-lift{target=nvptx}' --split-input-file | filecheck %s
// RUN: moa-opt %s -p 'moa-to-dnf,moa-sink,moa-lift{target=nvptx tier=portable}' --split-input-file | filecheck %s --check-prefix=PORTABLE

// A product of f64: there are instructions for it.
// CHECK-LABEL: @product
// CHECK:       moa.schedule = "j=grid,block:16;i=grid,warps:4,regs:2;p=chunk:32,stages:2,mma,tall:4"
// PORTABLE-LABEL: @product
// PORTABLE:       moa.schedule = "j=grid,block:16;i=grid,warps:4,regs:2;p=chunk:32,stages:2"
func.func @product(%a: tensor<64x32xf64>, %b: tensor<32x16xf64>) -> tensor<64x16xf64> {
  %r = moa.inner add mul %a, %b : tensor<64x32xf64>, tensor<32x16xf64> -> tensor<64x16xf64>
  func.return %r : tensor<64x16xf64>
}

// -----

// Sums of long rows: all threads of a group share a row; so few have many.
// CHECK-LABEL: @sums
// CHECK:       moa.schedule = "p=chunk:4096,threads:1024"
func.func @sums(%a: tensor<8x4096xf32>) -> tensor<8xf32> {
  %n = moa.extent %a, 0 : tensor<8x4096xf32>
  %m = moa.extent %a, 1 : tensor<8x4096xf32>
  %0 = arith.constant 0 : index
  %s = moa.comprehension [%i < %n] -> tensor<8xf32> {
    %t = moa.fold add [%p = %0 to %m] -> f32 {
      %x = moa.at %a[%i, %p] : tensor<8x4096xf32>
      moa.yield %x : f32
    }
    moa.yield %t : f32
  }
  func.return %s : tensor<8xf32>
}

// -----

// Short rows: four threads have one, and a warp has eight that lie side by side.
// CHECK-LABEL: @short
// CHECK:       moa.schedule = "i=grid,warps:4,regs:1;p=chunk:8,stages:1"
func.func @short(%a: tensor<8192x8xf32>) -> tensor<8192xf32> {
  %n = moa.extent %a, 0 : tensor<8192x8xf32>
  %m = moa.extent %a, 1 : tensor<8192x8xf32>
  %0 = arith.constant 0 : index
  %s = moa.comprehension [%i < %n] -> tensor<8192xf32> {
    %t = moa.fold max [%p = %0 to %m] -> f32 {
      %x = moa.at %a[%i, %p] : tensor<8192x8xf32>
      moa.yield %x : f32
    }
    moa.yield %t : f32
  }
  func.return %s : tensor<8192xf32>
}

// -----

// Rows that a warp has in registers: eight lanes share one, a warp has four.
// CHECK-LABEL: @lanes
// CHECK:       moa.schedule = "i=grid,warps:4,regs:1,lanes:8;p=chunk:128,stages:1"
func.func @lanes(%a: tensor<20000x100xf32>) -> tensor<20000xf32> {
  %n = moa.extent %a, 0 : tensor<20000x100xf32>
  %m = moa.extent %a, 1 : tensor<20000x100xf32>
  %0 = arith.constant 0 : index
  %s = moa.comprehension [%i < %n] -> tensor<20000xf32> {
    %t = moa.fold max [%p = %0 to %m] -> f32 {
      %x = moa.at %a[%i, %p] : tensor<20000x100xf32>
      moa.yield %x : f32
    }
    moa.yield %t : f32
  }
  func.return %s : tensor<20000xf32>
}

// -----

// A product of f32: threads have as many rows as columns.
// CHECK-LABEL: @single
// CHECK:       moa.schedule = "j=grid,block:64;i=grid,warps:4,regs:4;p=chunk:32,stages:2,mma,square"
// PORTABLE-LABEL: @single
// PORTABLE:       moa.schedule = "j=grid,block:64;i=grid,warps:4,regs:4;p=chunk:32,stages:2,square"
func.func @single(%a: tensor<2048x32xf32>, %b: tensor<32x2048xf32>) -> tensor<2048x2048xf32> {
  %r = moa.inner add mul %a, %b : tensor<2048x32xf32>, tensor<32x2048xf32> -> tensor<2048x2048xf32>
  func.return %r : tensor<2048x2048xf32>
}

// -----

// A product of bf16: large tiles where there are many, loaded by the engine; without it
// where rows are no multiple of 16 bytes.
// CHECK-LABEL: @large
// CHECK:       moa.schedule = "j=grid,block:256;i=grid,warps:8,regs:2;p=chunk:64,stages:4,wgmma,tma"
// CHECK-SAME:  moa.other_schedule = "j=grid,block:256;i=grid,warps:8,regs:2;p=chunk:64,stages:2,wgmma"
func.func @large(%a: tensor<4096x64xbf16>, %b: tensor<64x4096xbf16>) -> tensor<4096x4096xbf16> {
  %r = moa.inner add mul %a, %b : tensor<4096x64xbf16>, tensor<64x4096xbf16> -> tensor<4096x4096xbf16>
  func.return %r : tensor<4096x4096xbf16>
}

// CHECK-LABEL: @odd
// CHECK-NOT:   moa.other_schedule
// CHECK:       moa.schedule = "j=grid,block:64;i=grid,warps:4,regs:2;p=chunk:64,stages:2,wgmma"
func.func @odd(%a: tensor<96x70xbf16>, %b: tensor<70x90xbf16>) -> tensor<96x90xbf16> {
  %r = moa.inner add mul %a, %b : tensor<96x70xbf16>, tensor<70x90xbf16> -> tensor<96x90xbf16>
  func.return %r : tensor<96x90xbf16>
}

// -----

// One thread for each element, without a schedule.
// CHECK-LABEL: @negated
// CHECK-NOT:   moa.schedule
func.func @negated(%a: tensor<8x16xf32>) -> tensor<8x16xf32> {
  %n = moa.extent %a, 0 : tensor<8x16xf32>
  %m = moa.extent %a, 1 : tensor<8x16xf32>
  %s = moa.comprehension [%i < %n, %j < %m] -> tensor<8x16xf32> {
    %x = moa.at %a[%i, %j] : tensor<8x16xf32>
    %y = arith.negf %x : f32
    moa.yield %y : f32
  }
  func.return %s : tensor<8x16xf32>
}
