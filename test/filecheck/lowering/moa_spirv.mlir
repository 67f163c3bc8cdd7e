// RUN: moa-opt %s -p moa-spirv --split-input-file | filecheck %s

// A product by multiply-adds, through memory that a work-group shares.

// CHECK-LABEL: func.func @product(
// CHECK:         "gpu.launch_func"({{.*}}kernel = @kernels::@product_kernel
// CHECK:       "gpu.module"
// CHECK:       "spirv.module"{{.*}}OpenCL
// CHECK:       "spirv.GlobalVariable"{{.*}}!spirv.ptr<!spirv.array<{{[0-9]+}} x f32>, Workgroup>
// CHECK:       "spirv.func"{{.*}}CrossWorkgroup
// CHECK:         "spirv.ControlBarrier"
// CHECK:         "spirv.CL.fma"
// CHECK:       "spirv.EntryPoint"{{.*}}@product_kernel
// CHECK-NOT:   memref.load
func.func @product(%a: tensor<64x32xf32>, %b: tensor<32x16xf32>) -> tensor<64x16xf32> {
  %r = moa.inner add mul %a, %b : tensor<64x32xf32>, tensor<32x16xf32> -> tensor<64x16xf32>
  func.return %r : tensor<64x16xf32>
}

// -----

// Sums over the threads of a subgroup.

// CHECK-LABEL: func.func @sums(
// CHECK:       "spirv.GroupNonUniformShuffleXor"
// CHECK:       "spirv.ExecutionMode"{{.*}}@sums_kernel
func.func @sums(%a: tensor<8x512xf32>) -> tensor<8xf32> {
  %n = moa.extent %a, 0 : tensor<8x512xf32>
  %m = moa.extent %a, 1 : tensor<8x512xf32>
  %0 = arith.constant 0 : index
  %s = moa.comprehension [%i < %n] -> tensor<8xf32> {
    %t = moa.fold add [%p = %0 to %m] -> f32 {
      %x = moa.at %a[%i, %p] : tensor<8x512xf32>
      moa.yield %x : f32
    }
    moa.yield %t : f32
  }
  func.return %s : tensor<8xf32>
}

// -----

// Sixteen bytes of halves are two vectors of four in memory; entry points that list
// memory of the work-group are those of version 1.4.

// CHECK-LABEL: func.func @halves(
// CHECK:       "spirv.module"{{.*}}#spirv.vce<v1.4,
// CHECK-NOT:   !spirv.ptr<vector<8xf16>
// CHECK:       "spirv.Load"{{.*}}vector<4xf16>
// CHECK:       "spirv.VectorShuffle"{{.*}} -> vector<8xf16>
func.func @halves(%a: tensor<64x32xf16>, %b: tensor<32x16xf16>) -> tensor<64x16xf16> {
  %r = moa.inner add mul %a, %b : tensor<64x32xf16>, tensor<32x16xf16> -> tensor<64x16xf16>
  func.return %r : tensor<64x16xf16>
}
