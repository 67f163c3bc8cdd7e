// RUN: moa-opt %s -p 'moa-lift{machine=avx512bf16 schedule="i=procs,block:64;j=procs,regs:1,lanes:16;p=chunk:256,regs:12,pairs"},moa-to-vector' | filecheck %s
// RUN: moa-opt %s -p 'moa-lift{machine=avx512},moa-to-vector' | filecheck %s --check-prefix WIDE

// A sum of products of bf16 in f32 takes two indices at a time: the factor in the lanes
// lies in pairs in a tile, the other is read as a pair. Of 31 indices the last is alone.

// CHECK-LABEL: func.func @product(
// CHECK:         %[[A:.*]] = moa.rav row %a
// CHECK:         %[[B:.*]] = moa.rav row %b
// CHECK:         %[[TILE:.*]] = memref.alloca() {alignment = 64 : i64} : memref<128x16xi32>
// CHECK:         %[[EVEN:.*]] = vector.load %[[B]][%{{.*}}] : memref<?xbf16>, vector<16xbf16>
// CHECK:         %[[ODD:.*]] = vector.load %[[B]][%{{.*}}] : memref<?xbf16>, vector<16xbf16>
// CHECK:         vector.shuffle %[[EVEN]], %[[ODD]] [0, 16, 1, 17, {{.*}}] : vector<16xbf16>, vector<16xbf16>
// CHECK:         vector.store %{{.*}}, %[[TILE]][%{{.*}}] : memref<128x16xi32>, vector<16xi32>
// CHECK:         %[[ALONE:.*]] = "arith.extui"(%{{.*}}) : (vector<16xi16>) -> vector<16xi32>
// CHECK:         %[[PAIR:.*]] = arith.ori %[[ALONE]], %{{.*}} : vector<16xi32>
// CHECK:         vector.store %[[PAIR]], %[[TILE]]
// CHECK:         vector.load %[[TILE]]
// CHECK:         vector.load %[[A]][%{{.*}}] : memref<?xbf16>, vector<2xbf16>
// CHECK:         "x86vector.avx512.dot"(%{{.*}}) : (vector<16xf32>, vector<32xbf16>, vector<32xbf16>) -> vector<16xf32>
// CHECK:         %[[LAST:.*]] = memref.load %[[A]][%{{.*}}] : memref<?xbf16>
// CHECK:         arith.bitcast %[[LAST]] : bf16 to i16
// CHECK:         "x86vector.avx512.dot"

// Without the instruction the factor that has no lanes is extended once.

// WIDE-LABEL: func.func @product(
// WIDE-NOT:     x86vector
// WIDE:         %[[A:.*]] = moa.rav row %a
// WIDE:         %[[TILE:.*]] = memref.alloca() {alignment = 64 : i64} : memref<64x256xf32>
// WIDE:         %[[NARROW:.*]] = vector.load %[[A]][%{{.*}}] : memref<?xbf16>, vector<16xbf16>
// WIDE:         %[[WIDE:.*]] = arith.extf %[[NARROW]] : vector<16xbf16> to vector<16xf32>
// WIDE:         vector.store %[[WIDE]], %[[TILE]]
// WIDE-NOT:     x86vector
// WIDE:         memref.load %[[TILE]]
// WIDE:         vector.fma
// WIDE-NOT:     x86vector
// WIDE:         func.return
func.func @product(%a: tensor<64x31xbf16>, %b: tensor<31x32xbf16>) -> tensor<64x32xf32> {
  %zero = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<64x31xbf16>
  %k = moa.extent %a, 1 : tensor<64x31xbf16>
  %m = moa.extent %b, 1 : tensor<31x32xbf16>
  %c = moa.comprehension [%i < %n, %j < %m] -> tensor<64x32xf32> {
    %sum = moa.fold add [%p = %zero to %k] -> f32 {
      %x = moa.at %a[%i, %p] : tensor<64x31xbf16>
      %y = moa.at %b[%p, %j] : tensor<31x32xbf16>
      %x_wide = arith.extf %x : bf16 to f32
      %y_wide = arith.extf %y : bf16 to f32
      %z = arith.mulf %x_wide, %y_wide : f32
      moa.yield %z : f32
    }
    moa.yield %sum : f32
  }
  func.return %c : tensor<64x32xf32>
}

// Products with f16, or with an f32, are not those of the instruction.

// CHECK-LABEL: func.func @others(
// CHECK-NOT:     x86vector
// CHECK:         func.return
func.func @others(%a: tensor<64x31xf16>, %b: tensor<31x32xf16>, %d: tensor<31x32xf32>) -> (tensor<64x32xf32>, tensor<64x32xf32>) {
  %zero = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<64x31xf16>
  %k = moa.extent %a, 1 : tensor<64x31xf16>
  %m = moa.extent %b, 1 : tensor<31x32xf16>
  %c, %e = moa.comprehension [%i < %n, %j < %m] -> tensor<64x32xf32>, tensor<64x32xf32> {
    %sum = moa.fold add [%p = %zero to %k] -> f32 {
      %x = moa.at %a[%i, %p] : tensor<64x31xf16>
      %y = moa.at %b[%p, %j] : tensor<31x32xf16>
      %x_wide = arith.extf %x : f16 to f32
      %y_wide = arith.extf %y : f16 to f32
      %z = arith.mulf %x_wide, %y_wide : f32
      moa.yield %z : f32
    }
    %other = moa.fold add [%p = %zero to %k] -> f32 {
      %x = moa.at %a[%i, %p] : tensor<64x31xf16>
      %y = moa.at %d[%p, %j] : tensor<31x32xf32>
      %x_wide = arith.extf %x : f16 to f32
      %x_half = arith.truncf %x_wide : f32 to bf16
      %x_back = arith.extf %x_half : bf16 to f32
      %z = arith.mulf %x_back, %y : f32
      moa.yield %z : f32
    }
    moa.yield %sum, %other : f32, f32
  }
  func.return %c, %e : tensor<64x32xf32>, tensor<64x32xf32>
}
