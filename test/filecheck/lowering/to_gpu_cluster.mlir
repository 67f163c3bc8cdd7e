// RUN: moa-opt %s -p 'moa-to-dnf,moa-sink,moa-lift{target=nvptx schedule="j=grid,block:16,cluster:2;i=grid,warps:4,regs:2;p=chunk:64,stages:2,wgmma,tma"},moa-to-gpu' | filecheck %s
// RUN: moa-opt %s -p 'moa-to-dnf,moa-sink,moa-lift{target=nvptx schedule="j=grid,block:16,cluster:2;i=grid,warps:4,regs:2;p=chunk:64,stages:2,wgmma,tma"},moa-to-gpu,moa-split-loops,moa-fold-addresses,moa-check-storage,moa-to-scf,moa-outline-kernels' | filecheck %s --check-prefix=KERNEL

// Two groups with neighbouring blocks of columns are a cluster. They have the same rows
// of the first factor, of which each has 32 of 64 loaded into the memory of both: so
// its barriers wait for eight warps of two groups. The columns of the second factor
// are each group's own. The groups meet when barriers are made, and before they end.

// CHECK-LABEL: func.func @product
// CHECK:       [[TWO:%[0-9]+]] = arith.constant 2 : index
// CHECK:       [[ROWS:%[0-9]+]] = arith.ceildivsi
// CHECK:       [[COLUMNS:%[0-9]+]] = arith.ceildivsi
// CHECK-NEXT:  [[CLUSTERS:%[0-9]+]] = arith.ceildivsi [[COLUMNS]], [[TWO]] : index
// CHECK-NEXT:  [[GROUPS:%[0-9]+]] = arith.muli [[TWO]], [[ROWS]] : index
// CHECK-NEXT:  arith.muli [[GROUPS]], [[CLUSTERS]] : index
// CHECK-DAG:   [[A:%[0-9]+]] = "moa_gpu.tensor_map"({{.*}}) <{box = array<i64: 32, 64>,
// CHECK-DAG:   [[B:%[0-9]+]] = "moa_gpu.tensor_map"({{.*}}) <{box = array<i64: 64, 64>,
// CHECK:       "gpu.launch"
// CHECK:         [[SHARED:%[0-9]+]] = arith.constant 8 : i32
// CHECK:           "nvvm.mbarrier.init"({{%[0-9]+}}, [[SHARED]])
// CHECK:         [[OWN:%[0-9]+]] = arith.constant 4 : i32
// CHECK:           "nvvm.mbarrier.init"({{%[0-9]+}}, [[OWN]])
// CHECK:           "nvvm.fence.mbarrier.init"
// CHECK-NEXT:    }
// CHECK-NEXT:    "nvvm.cluster.arrive"
// CHECK-NEXT:    "nvvm.cluster.wait"
// CHECK-NOT:     "gpu.barrier"
// CHECK:         scf.for
// CHECK:           wgmma.mma_async
// CHECK:           scf.if
// CHECK:             [[THERE:%[0-9]+]] = "nvvm.mapa"({{%[0-9]+}}, {{%[0-9]+}}) : (!llvm.ptr<3>, i32) -> !llvm.ptr<7>
// CHECK-NEXT:        "nvvm.mbarrier.arrive"([[THERE]]) <{scope = #nvvm.mem_scope<cluster>, relaxed = false}> : (!llvm.ptr<7>) -> ()
// CHECK:           "nvvm.mbarrier.arrive"({{%[0-9]+}}) <{scope = #nvvm.mem_scope<cta>, relaxed = false}> : (!llvm.ptr<3>) -> i64
// CHECK:         } else {
// CHECK:           scf.for
// CHECK:             try_wait.parity.acquire.cluster.shared::cta
// CHECK:             "nvvm.mbarrier.arrive.expect_tx"([[FULL:%[0-9]+]], [[BYTES:%[0-9]+]])
// CHECK:             [[MASK:%[0-9]+]] = arith.trunci {{%[0-9]+}} : i32 to i16
// CHECK:             "nvvm.cp.async.bulk.tensor.shared.cluster.global"({{%[0-9]+}}, [[A]], {{%[0-9]+}}, {{%[0-9]+}}, [[FULL]], [[MASK]])
// CHECK:             try_wait.parity.shared::cta
// CHECK:             "nvvm.cp.async.bulk.tensor.shared.cluster.global"({{%[0-9]+}}, [[B]], {{%[0-9]+}}, {{%[0-9]+}}, [[OTHER:%[0-9]+]])
// CHECK:         "nvvm.cluster.arrive"
// CHECK-NEXT:    "nvvm.cluster.wait"
// CHECK-NEXT:    "gpu.terminator"
// CHECK:       nvvm.cluster_dim = array<i32: 2, 1, 1>

// The kernel has it as an attribute; the launch is one as any other.

// KERNEL:       "gpu.launch_func"({{.*}}) <{kernel = @kernels::@product_kernel, operandSegmentSizes = array<i32: 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, {{[0-9]+}}, 0>}>
// KERNEL:       nvvm.cluster_dim = array<i32: 2, 1, 1>
func.func @product(%a: tensor<64x128xbf16>, %b: tensor<128x32xbf16>) -> tensor<64x32xf32> {
  %x = moa.cast %a : tensor<64x128xbf16> -> tensor<64x128xf32>
  %y = moa.cast %b : tensor<128x32xbf16> -> tensor<128x32xf32>
  %r = moa.inner add mul %x, %y : tensor<64x128xf32>, tensor<128x32xf32> -> tensor<64x32xf32>
  func.return %r : tensor<64x32xf32>
}
