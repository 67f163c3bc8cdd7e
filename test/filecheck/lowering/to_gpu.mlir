// RUN: moa-opt %s -p 'moa-to-dnf,moa-sink,moa-lift{target=nvptx schedule="j=grid,block:8;i=grid,warps:1,regs:2;p=chunk:16,stages:1,mma"},moa-to-gpu' | filecheck %s
// RUN: moa-opt %s -p 'moa-to-dnf,moa-sink,moa-lift{target=nvptx tier=portable},moa-to-gpu' | filecheck %s --check-prefix=PORTABLE

// A product of matrices: a group of one warp has 16 rows and 8 columns, and takes 16 of
// the summed indices at a time into shared memory, one chunk after the other.

// CHECK-LABEL: func.func @product
// CHECK:       "gpu.launch"([[GROUPS:%[0-9]+]],
// CHECK:         [[SHARED:%[0-9]+]] = "gpu.dynamic_shared_memory"()
// CHECK:         [[RIGHT:%[0-9]+]] = memref.view [[SHARED]]{{.*}} to memref<16x12xf64,
// CHECK:         [[LEFT:%[0-9]+]] = memref.view [[SHARED]]{{.*}} to memref<16x20xf64,
// CHECK:         "nvgpu.device_async_copy"([[LEFT]],
// CHECK:         "nvgpu.device_async_copy"([[RIGHT]],
// CHECK:         scf.for {{.*}} iter_args({{%[0-9]+}} = {{%[0-9]+}}, [[S0:%[0-9]+]] = {{%[0-9]+}}, [[S1:%[0-9]+]] =
// CHECK:           "nvgpu.device_async_wait"
// CHECK-NEXT:      "gpu.barrier"
// CHECK:           [[A:%[0-9]+]] = memref.load [[LEFT]]
// CHECK:           [[B:%[0-9]+]] = memref.load [[RIGHT]]
// CHECK:           "nvvm.mma.sync"([[A]], [[B]], [[S0]], [[S1]]) <{shape = #nvvm.shape<m = 8, n = 8, k = 4>
// CHECK:           "gpu.barrier"
// CHECK:           "nvgpu.device_async_copy"([[LEFT]],
// CHECK:           "nvgpu.device_async_copy"([[RIGHT]],
// CHECK:         "vector.store"({{.*}}) <{alignment = 16 : i64}>
// CHECK-NOT:   moa.comprehension

// PORTABLE-LABEL: func.func @product
// PORTABLE:       "gpu.launch"
// PORTABLE:         "vector.load"
// PORTABLE-NEXT:    "vector.store"
// PORTABLE:         math.fma
// PORTABLE-NOT:   nvgpu
// PORTABLE-NOT:   nvvm
// PORTABLE:       func.return
func.func @product(%a: tensor<64x32xf64>, %b: tensor<32x16xf64>) -> tensor<64x16xf64> {
  %r = moa.inner add mul %a, %b : tensor<64x32xf64>, tensor<32x16xf64> -> tensor<64x16xf64>
  func.return %r : tensor<64x16xf64>
}
