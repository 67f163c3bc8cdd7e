// RUN: moa-opt %s -p moa-to-gpu | filecheck %s

// Rows of a product less their maximum: one pass for that, then the outputs, of which
// there are as many as the call says, chunk by chunk. Each loads the factors.
// CHECK-LABEL: func.func @below(
// CHECK:         gpu.launch
// CHECK:           "gpu.dynamic_shared_memory"
// CHECK:           scf.for
// CHECK:             "gpu.barrier"
// CHECK:             math.fma
// CHECK:           "gpu.shuffle"
// CHECK:           scf.for
// CHECK:             "gpu.barrier"
// CHECK:             math.fma
// CHECK:             arith.subf
// CHECK:             memref.store
func.func @below(%a: tensor<64x32xf32>, %b: tensor<32x?xf32>) -> tensor<64x?xf32> {
  %0 = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<64x32xf32>
  %k = moa.extent %a, 1 : tensor<64x32xf32>
  %m = moa.extent %b, 1 : tensor<32x?xf32>
  %r = moa.comprehension [%i < %n] -> tensor<64x?xf32> {
    %top = moa.fold max [%p = %0 to %m] -> f32 {
      %s = moa.fold add [%q = %0 to %k] -> f32 {
        %x = moa.at %a[%i, %q] : tensor<64x32xf32>
        %y = moa.at %b[%q, %p] : tensor<32x?xf32>
        %z = arith.mulf %x, %y : f32
        moa.yield %z : f32
      }
      moa.yield %s : f32
    }
    %row = moa.comprehension [%j < %m] -> tensor<?xf32> {
      %s = moa.fold add [%q = %0 to %k] -> f32 {
        %x = moa.at %a[%i, %q] : tensor<64x32xf32>
        %y = moa.at %b[%q, %j] : tensor<32x?xf32>
        %z = arith.mulf %x, %y : f32
        moa.yield %z : f32
      }
      %t = arith.subf %s, %top : f32
      moa.yield %t : f32
    }
    moa.yield %row : tensor<?xf32>
  } {moa.schedule = "i=grid,warps:1,regs:2;p=chunk:16,stages:1"}
  func.return %r : tensor<64x?xf32>
}
