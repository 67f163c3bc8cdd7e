// RUN: moa-opt %s -p 'moa-lift{target=nvptx}' | filecheck %s
// RUN: moa-opt %s -p 'moa-lift{target=nvptx engine=false}' | filecheck %s --check-prefix=WITHOUT
// RUN: moa-opt %s -p 'moa-lift{target=nvptx},moa-to-gpu' | filecheck %s --check-prefix=CODE
// RUN: moa-opt %s -p 'moa-lift{target=nvptx},moa-to-gpu{shared_bytes=100000}' | filecheck %s --check-prefix=SMALL

// Weights are products, and factors of others: these are computed one chunk late, and
// the copy engine loads chunks. Beside the schedule is the one without.
// CHECK-LABEL: @weighted
// CHECK:       moa.schedule = "i=grid,warps:8,regs:2;p=chunk:128,stages:2,wgmma,tma,behind"
// CHECK-SAME:  moa.other_schedule = "i=grid,groups:2,warps:8,regs:2;p=chunk:64,stages:2,wgmma"
// WITHOUT-LABEL: @weighted
// WITHOUT-NOT:   moa.other_schedule
// WITHOUT:       moa.schedule = "i=grid,groups:2,warps:8,regs:2;p=chunk:64,stages:2,wgmma"

// Three arrays are loaded as boxes.
// CODE-LABEL: @weighted
// CODE-COUNT-3: "moa_gpu.tensor_map"
// CODE:         "nvvm.setmaxregister"

// If its tiles do not fit, code is made by the other schedule.
// SMALL-LABEL: @weighted
// SMALL-NOT:   tensor_map
// SMALL:       nvgpu.device_async_copy
func.func @weighted(%q: tensor<256x128xbf16>, %k: tensor<512x128xbf16>, %v: tensor<512x128xbf16>) -> tensor<256x128xf32> {
  %n = moa.extent %q, 0 : tensor<256x128xbf16>
  %m = moa.extent %k, 0 : tensor<512x128xbf16>
  %d = moa.extent %q, 1 : tensor<256x128xbf16>
  %e = moa.extent %v, 1 : tensor<512x128xbf16>
  %0 = arith.constant 0 : index
  %least = arith.constant -1.000000e+30 : f32
  %r = moa.comprehension [%i < %n] -> tensor<256x128xf32> {
    %most, %sum, %pivot = moa.cascade [%0 to %m] chunk 64 -> f32, tensor<128xf32>, f32 data {
    ^bb0(%p: index):
      %s = moa.fold add [%h = %0 to %d] -> f32 {
        %x = moa.at %q[%i, %h] : tensor<256x128xbf16>
        %xw = arith.extf %x : bf16 to f32
        %y = moa.at %k[%p, %h] : tensor<512x128xbf16>
        %yw = arith.extf %y : bf16 to f32
        %xy = arith.mulf %xw, %yw : f32
        moa.yield %xy : f32
      }
      moa.yield %s : f32
    } group max part {
    ^bb0(%p: index, %s: f32):
      moa.yield %s : f32
    } group add pivot %least {
    ^bb0(%count: index, %a: f32, %old: f32, %b: tensor<128xf32>):
      %new = arith.maximumf %a, %least : f32
      moa.yield %new : f32
    } part {
    ^bb0(%p: index, %s: f32, %a: f32):
      %less = arith.subf %s, %a : f32
      %w = math.exp %less : f32
      %narrow = arith.truncf %w : f32 to bf16
      %wide = arith.extf %narrow : bf16 to f32
      %row = moa.comprehension [%l < %e] -> tensor<128xf32> {
        %z = moa.at %v[%p, %l] : tensor<512x128xbf16>
        %zw = arith.extf %z : bf16 to f32
        %wz = arith.mulf %wide, %zw : f32
        moa.yield %wz : f32
      }
      moa.yield %row : tensor<128xf32>
    } move {
    ^bb0(%count: index, %old: f32, %new: f32, %b: tensor<128xf32>):
      %less = arith.subf %old, %new : f32
      %f = math.exp %less : f32
      %moved = moa.comprehension [%l < %e] -> tensor<128xf32> {
        %z = moa.at %b[%l] : tensor<128xf32>
        %fz = arith.mulf %f, %z : f32
        moa.yield %fz : f32
      }
      moa.yield %moved : tensor<128xf32>
    }
    moa.yield %sum : tensor<128xf32>
  }
  func.return %r : tensor<256x128xf32>
}
