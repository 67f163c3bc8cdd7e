// RUN: moa-opt %s -p 'moa-lift{target=nvptx}' --split-input-file | filecheck %s
// RUN: moa-opt %s -p 'moa-lift{target=nvptx tf32=true}' --split-input-file | filecheck %s --check-prefix=TF32
// RUN: moa-opt %s -p 'moa-lift{target=nvptx deterministic=true}' --split-input-file | filecheck %s --check-prefix=SAME

// A row of 300 sums for each i, which registers do not hold: blocks of the grid.
// CHECK-LABEL: @long
// CHECK:         moa.schedule = "l=grid,block:64;i=grid,warps:4,regs:4;p=chunk:32,stages:2"
// TF32-LABEL:  @long
// TF32:          moa.schedule = "l=grid,block:64;i=grid,warps:4,regs:4;p=chunk:32,stages:2,mma,tf32"
// SAME-LABEL:  @long
// SAME:          moa.schedule = "l=grid,block:64;i=grid,warps:4,regs:4;p=chunk:32,stages:2,aligned"
func.func @long(%a: tensor<128x96xf32>, %b: tensor<96x300xf32>) -> tensor<128x300xf32> {
  %0 = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<128x96xf32>
  %k = moa.extent %a, 1 : tensor<128x96xf32>
  %m = moa.extent %b, 1 : tensor<96x300xf32>
  %r = moa.comprehension [%i < %n] -> tensor<128x300xf32> {
    %s = moa.fold add [%p = %0 to %k] -> tensor<300xf32> {
      %row = moa.comprehension [%l < %m] -> tensor<300xf32> {
        %x = moa.at %a[%i, %p] : tensor<128x96xf32>
        %y = moa.at %b[%p, %l] : tensor<96x300xf32>
        %z = arith.mulf %x, %y : f32
        moa.yield %z : f32
      }
      moa.yield %row : tensor<300xf32>
    }
    moa.yield %s : tensor<300xf32>
  }
  func.return %r : tensor<128x300xf32>
}

// -----

// Of any length too. Of few rows a lane has columns of its own, for all of them; with
// `deterministic` they have what many have.
// CHECK-LABEL: @any
// CHECK:         moa.schedule = "l=grid,block:64;i=grid,warps:1,regs:4,lanes:32;p=chunk:32,stages:2,mma"
// SAME-LABEL:  @any
// SAME:          moa.schedule = "l=grid,block:64;i=grid,warps:1,regs:2;p=chunk:32,stages:2,aligned"
func.func @any(%a: tensor<4x96xf32>, %b: tensor<96x?xf32>) -> tensor<4x?xf32> {
  %0 = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<4x96xf32>
  %k = moa.extent %a, 1 : tensor<4x96xf32>
  %m = moa.extent %b, 1 : tensor<96x?xf32>
  %r = moa.comprehension [%i < %n] -> tensor<4x?xf32> {
    %s = moa.fold add [%p = %0 to %k] -> tensor<?xf32> {
      %row = moa.comprehension [%l < %m] -> tensor<?xf32> {
        %x = moa.at %a[%i, %p] : tensor<4x96xf32>
        %y = moa.at %b[%p, %l] : tensor<96x?xf32>
        %z = arith.mulf %x, %y : f32
        moa.yield %z : f32
      }
      moa.yield %row : tensor<?xf32>
    }
    moa.yield %s : tensor<?xf32>
  }
  func.return %r : tensor<4x?xf32>
}
