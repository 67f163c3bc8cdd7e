// RUN: moa-opt %s -p moa-rocdl | filecheck %s
// RUN: not moa-opt %s -p 'moa-rocdl{chip=sm_90}' 2>&1 | filecheck %s --check-prefix=CHIP

// Kernels for AMD's GPUs: a product by multiply-adds, through memory that a block shares.

// CHECK-LABEL: func.func @rows(
// CHECK:         "gpu.launch_func"({{.*}}kernel = @kernels::@rows_kernel
// CHECK:       "gpu.module"{{.*}}#rocdl.target<{{.*}}"gfx942"
// CHECK:         addr_space = 3
// CHECK:         "rocdl.workitem.id.x"
// CHECK:         "rocdl.barrier"
// CHECK-NOT:   nvvm

// CHIP: unknown chip: expected a name such as gfx90a, gfx942 or gfx1100, got 'sm_90'
func.func @rows(%a: tensor<64x32xf32>, %b: tensor<32x16xf32>) -> tensor<64x16xf32> {
  %r = moa.inner add mul %a, %b : tensor<64x32xf32>, tensor<32x16xf32> -> tensor<64x16xf32>
  func.return %r : tensor<64x16xf32>
}
