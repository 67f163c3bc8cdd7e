// RUN: moa-opt %s -p moa-nvvm | filecheck %s
// RUN: moa-opt %s -p 'moa-nvvm{chip=sm_80 features="+ptx83"}' | filecheck %s --check-prefix=CHIP
// RUN: moa-opt %s -p 'moa-nvvm,mlir-pipeline{pipeline="gpu-module-to-binary{format=isa}"}' | filecheck %s --check-prefix=PTX

// From the algebra to kernels in the NVVM dialect, beside the host's functions.

func.func @rows(%a: tensor<64x32xf32>, %b: tensor<32x16xf32>) -> tensor<64x16xf32> {
  %r = moa.inner add mul %a, %b : tensor<64x32xf32>, tensor<32x16xf32> -> tensor<64x16xf32>
  func.return %r : tensor<64x16xf32>
}
// CHECK:       gpu.container_module
// CHECK-LABEL: func.func @rows(
// CHECK:         "gpu.launch_func"({{.*}}kernel = @kernels::@rows_kernel
// CHECK-NOT:   moa.inner
// CHECK:       "gpu.module"
// CHECK:         "llvm.func"{{.*}}"rows_kernel"
// CHECK:           "nvvm.read.ptx.sreg.tid.x"
// CHECK:           "nvvm.barrier0"
// CHECK:           callee = @__nv_fmaf
// CHECK-NOT:   memref.load
// CHECK:       gpu.kernel
// CHECK-SAME:      nvvm.reqntid = array<i32: 128, 1, 1>

// CHIP:        #nvvm.target<O = 3, chip = "sm_80", features = "+ptx83">

// PTX:         gpu.binary
// PTX-SAME:      .target sm_90a
// PTX-SAME:      .visible .entry rows_kernel(
// PTX-SAME:      .reqntid 128
// PTX-SAME:      ld.global.v4.b32
// PTX-SAME:      bar.sync
// PTX-SAME:      fma.rn.f32
// PTX-SAME:      st.global
