// RUN: moa-opt %s -p 'moa-to-dnf,moa-sink,moa-lift{target=nvptx}' --split-input-file | filecheck %s
// RUN: moa-opt %s -p 'moa-to-dnf,moa-sink,moa-lift{target=nvptx tier=portable}' --split-input-file | filecheck %s --check-prefix=PORTABLE

// A product of f64: there are instructions for it.
// CHECK-LABEL: @product
// CHECK:       moa.schedule = "j=grid,block:16;i=grid,warps:4,regs:2;p=chunk:32,stages:2,mma"
// PORTABLE-LABEL: @product
// PORTABLE:       moa.schedule = "j=grid,block:16;i=grid,warps:4,regs:2;p=chunk:32,stages:2"
func.func @product(%a: tensor<64x32xf64>, %b: tensor<32x16xf64>) -> tensor<64x16xf64> {
  %r = moa.inner add mul %a, %b : tensor<64x32xf64>, tensor<32x16xf64> -> tensor<64x16xf64>
  func.return %r : tensor<64x16xf64>
}

// -----

// Sums of long rows: all threads of a group share a row.
// CHECK-LABEL: @sums
// CHECK:       moa.schedule = "p=chunk:4096,threads:256"
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
