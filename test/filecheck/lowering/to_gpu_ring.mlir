// RUN: moa-opt %s -p 'moa-to-dnf,moa-sink,moa-lift{target=nvptx schedule="j=grid,block:32;i=grid,warps:4,regs:2;p=chunk:64,stages:2,wgmma,tma"},moa-to-gpu' | filecheck %s
// RUN: moa-opt %s -p 'moa-to-dnf,moa-sink,moa-lift{target=nvptx schedule="j=grid,block:32;i=grid,warps:4,regs:2;p=chunk:64,stages:2,wgmma,tma"},moa-to-gpu,moa-split-loops,moa-fold-addresses,moa-check-storage,moa-to-scf,moa-outline-kernels,moa-plan-launches' | filecheck %s --check-prefix=PLAN

// A product of matrices whose chunks the copy engine loads: the host makes a tensor map
// of each array, one thread makes the barriers of the ring, four warps multiply, and
// one thread of the last four has boxes copied. A box has 64 elements (128 bytes) of 64
// rows.

// CHECK-LABEL: func.func @product
// CHECK-DAG:   [[A:%[0-9]+]] = "moa_gpu.tensor_map"({{.*}}) <{box = array<i64: 64, 64>, {{.*}} : (memref<?xbf16>, index, index, index) -> !llvm.ptr
// CHECK-DAG:   [[B:%[0-9]+]] = "moa_gpu.tensor_map"({{.*}}) <{box = array<i64: 64, 64>,
// CHECK:       "gpu.launch"
// CHECK:         memref.view {{.*}} to memref<8xi64, #gpu.address_space<workgroup>>
// CHECK:         memref.view {{.*}} to memref<2x1x64x64xbf16, #gpu.address_space<workgroup>>
// CHECK:         scf.if
// CHECK-COUNT-8:   "nvvm.mbarrier.init"
// CHECK-NEXT:      "nvvm.fence.mbarrier.init"
// CHECK:         "gpu.barrier"
// CHECK:         scf.if
// CHECK:           scf.for
// CHECK-COUNT-2:     mbarrier.try_wait.parity
// CHECK-COUNT-4:     wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16
// CHECK:             wgmma.wait_group
// CHECK-COUNT-2:     "nvvm.mbarrier.arrive"
// CHECK:         } else {
// CHECK:           scf.if
// CHECK:             "nvvm.prefetch"([[A]]) <{tensormap}>
// CHECK:             "nvvm.prefetch"([[B]]) <{tensormap}>
// CHECK:             scf.for
// CHECK:               mbarrier.try_wait.parity
// CHECK:               "nvvm.mbarrier.arrive.expect_tx"([[FULL:%[0-9]+]],
// CHECK:               "nvvm.cp.async.bulk.tensor.shared.cluster.global"({{%[0-9]+}}, [[A]], {{%[0-9]+}}, {{%[0-9]+}}, [[FULL]])
// CHECK:               mbarrier.try_wait.parity
// CHECK:               "nvvm.cp.async.bulk.tensor.shared.cluster.global"({{%[0-9]+}}, [[B]],
// CHECK:       nvvm.minctasm = 1 : i32

// In the plan a tensor map is its address, two extents and a stride in bytes; the
// kernel has a parameter for it, at a multiple of 64.

// PLAN-LABEL: func.func @product
// PLAN-SAME:    moa.launches = [{kernel = @kernels::@product_kernel, arguments = [{{.*}}4 : i64, 4 : i64], maps = [{argument = {{[0-9]+}} : i64, element = bf16, box = array<i64: 64, 64>}, {argument = {{[0-9]+}} : i64, element = bf16, box = array<i64: 64, 64>}]}]
// PLAN-NOT:     tensor_map
// PLAN:       "gpu.func"
// PLAN:         arg_attrs = [{{.*}}{llvm.align = 64 : i64}
func.func @product(%a: tensor<64x128xbf16>, %b: tensor<128x32xbf16>) -> tensor<64x32xf32> {
  %x = moa.cast %a : tensor<64x128xbf16> -> tensor<64x128xf32>
  %y = moa.cast %b : tensor<128x32xbf16> -> tensor<128x32xf32>
  %r = moa.inner add mul %x, %y : tensor<64x128xf32>, tensor<128x32xf32> -> tensor<64x32xf32>
  func.return %r : tensor<64x32xf32>
}
