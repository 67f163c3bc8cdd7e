// RUN: moa-opt %s -p 'moa-lift{machine=avx512}' --split-input-file | filecheck %s
// RUN: moa-opt %s -p 'moa-lift{machine=avx2}' --split-input-file | filecheck %s --check-prefix=AVX2

// Sums of rows: the rows are long, and their own indices lie in the lanes.
// CHECK-LABEL: @rows
// CHECK:       moa.schedule = "p=chunk:{{[0-9]+}},block:{{[0-9]+}},regs:{{[0-9]+}},lanes:16"
// AVX2-LABEL:  @rows
// AVX2:        lanes:8"
func.func @rows(%a: tensor<64x4096xf32>) -> tensor<64xf32> {
  %n = moa.extent %a, 0 : tensor<64x4096xf32>
  %m = moa.extent %a, 1 : tensor<64x4096xf32>
  %0 = arith.constant 0 : index
  %s = moa.comprehension [%i < %n] -> tensor<64xf32> {
    %t = moa.fold add [%p = %0 to %m] -> f32 {
      %x = moa.at %a[%i, %p] : tensor<64x4096xf32>
      moa.yield %x : f32
    }
    moa.yield %t : f32
  }
  func.return %s : tensor<64xf32>
}

// -----

// A product: columns of the right operand in the lanes, rows of the left in registers.
// CHECK-LABEL: @product
// CHECK:       moa.schedule = "i=procs,block:{{[0-9]+}};j=procs,regs:{{[0-9]+}},lanes:16;p=chunk:256,regs:{{[0-9]+}}"
func.func @product(%a: tensor<192x64xf32>, %b: tensor<64x128xf32>) -> tensor<192x128xf32> {
  %n = moa.extent %a, 0 : tensor<192x64xf32>
  %m = moa.extent %a, 1 : tensor<192x64xf32>
  %k = moa.extent %b, 1 : tensor<64x128xf32>
  %0 = arith.constant 0 : index
  %s = moa.comprehension [%i < %n, %j < %k] -> tensor<192x128xf32> {
    %t = moa.fold add [%p = %0 to %m] -> f32 {
      %x = moa.at %a[%i, %p] : tensor<192x64xf32>
      %y = moa.at %b[%p, %j] : tensor<64x128xf32>
      %z = arith.mulf %x, %y : f32
      moa.yield %z : f32
    }
    moa.yield %t : f32
  }
  func.return %s : tensor<192x128xf32>
}
