// RUN: moa-opt %s -p moa-expand-math | filecheck %s
// RUN: moa-opt %s -p 'moa-expand-math{target=avx512}' | filecheck %s --check-prefix=AVX512

// Functions of the dialect math as arithmetic.

// Clamped from both sides, reduced by two parts of ln 2, scaled by two powers of two.
// CHECK-LABEL: func.func @exp(
// CHECK-SAME:    %[[X:.*]]: vector<16xf32>
// CHECK:         %[[LOW:.*]] = arith.maximumf %[[X]],
// CHECK-NEXT:    %[[Y:.*]] = arith.minimumf %[[LOW]],
// CHECK-NEXT:    %[[SHIFTED:.*]] = math.fma %[[Y]],
// CHECK-NEXT:    %[[N:.*]] = arith.subf %[[SHIFTED]],
// CHECK-NEXT:    %[[R:.*]] = math.fma %[[N]], %{{.*}}, %[[Y]]
// CHECK-NEXT:    math.fma %[[N]], %{{.*}}, %[[R]]
// CHECK-NOT:     math.exp
// CHECK:         arith.mulf
// CHECK-NEXT:    arith.mulf
// CHECK-NEXT:    func.return
// AVX512-LABEL: func.func @exp(
// AVX512:         %[[E:.*]] = llvm.call_intrinsic "llvm.x86.avx512.mask.scalef.ps.512"
// AVX512-NEXT:    func.return %[[E]]
func.func @exp(%x: vector<16xf32>) -> vector<16xf32> {
  %e = math.exp %x : vector<16xf32>
  func.return %e : vector<16xf32>
}

// No clamp from above.
// CHECK-LABEL: func.func @nonpositive(
// CHECK-NOT:     minimumf
// CHECK:         func.return
func.func @nonpositive(%x: f64) -> f64 {
  %e = math.exp %x {moa.nonpositive} : f64
  func.return %e : f64
}

// Narrow floats by way of f32.
// CHECK-LABEL: func.func @half(
// CHECK-SAME:    %[[X:.*]]: f16
// CHECK:         arith.extf %[[X]] : f16 to f32
// CHECK-NOT:     math.tanh
// CHECK:         %[[T:.*]] = arith.truncf %{{.*}} : f32 to f16
// CHECK-NEXT:    func.return %[[T]]
func.func @half(%x: f16) -> f16 {
  %t = math.tanh %x : f16
  func.return %t : f16
}

// CHECK-LABEL: func.func @left_alone(
// CHECK-NEXT:    math.sin
// CHECK-NEXT:    math.powf
func.func @left_alone(%x: f64, %y: f64) -> f64 {
  %s = math.sin %x : f64
  %p = math.powf %s, %y : f64
  func.return %p : f64
}
