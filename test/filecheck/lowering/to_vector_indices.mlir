// RUN: moa-opt %s -p 'moa-lift{machine=avx512},moa-to-vector' --split-input-file | filecheck %s

// A distance is a difference of floats that have all integers up to 2^24.
// CHECK-LABEL: func.func @distance(
// CHECK:         "scf.parallel"
// CHECK-NOT:     arith.maxsi
// CHECK:         %[[DIFFERENCE:.*]] = arith.subf %{{.*}}, %{{.*}} : vector<16xf32>
// CHECK-NEXT:    %[[DISTANCE:.*]] = math.absf %[[DIFFERENCE]] : vector<16xf32>
// CHECK:         vector.store %[[DISTANCE]]
func.func @distance(%a: tensor<64x64xf32>) -> tensor<64x64xf32> {
  %n = moa.extent %a, 0 : tensor<64x64xf32>
  %m = moa.extent %a, 1 : tensor<64x64xf32>
  %zero = arith.constant 0 : index
  %r = moa.comprehension [%i < %n, %j < %m] -> tensor<64x64xf32> {
    %d = arith.subi %i, %j : index
    %minus = arith.subi %zero, %d : index
    %away = arith.maxsi %d, %minus : index
    %wide = arith.index_cast %away : index to i64
    %x = arith.sitofp %wide : i64 to f32
    moa.yield %x : f32
  }
  func.return %r : tensor<64x64xf32>
}

// -----

// A remainder takes 32 bits, which are converted.
// CHECK-LABEL: func.func @remainder(
// CHECK:         arith.remsi %{{.*}}, %{{.*}} : vector<16xi32>
// CHECK:         "arith.sitofp"(%{{.*}}) : (vector<16xi32>) -> vector<16xf32>
func.func @remainder(%a: tensor<64x64xf32>) -> tensor<64x64xf32> {
  %n = moa.extent %a, 0 : tensor<64x64xf32>
  %m = moa.extent %a, 1 : tensor<64x64xf32>
  %four = arith.constant 4 : index
  %r = moa.comprehension [%i < %n, %j < %m] -> tensor<64x64xf32> {
    %d = arith.subi %i, %j : index
    %rest = arith.remsi %d, %four : index
    %wide = arith.index_cast %rest : index to i64
    %x = arith.sitofp %wide : i64 to f32
    moa.yield %x : f32
  }
  func.return %r : tensor<64x64xf32>
}

// -----

// Indices of an axis that types do not give may need all bits.
// CHECK-LABEL: func.func @any(
// CHECK:         "arith.sitofp"(%{{.*}}) : (vector<16xi64>) -> vector<16xf32>
func.func @any(%a: tensor<64x?xf32>) -> tensor<64x?xf32> {
  %n = moa.extent %a, 0 : tensor<64x?xf32>
  %m = moa.extent %a, 1 : tensor<64x?xf32>
  %r = moa.comprehension [%i < %n, %j < %m] -> tensor<64x?xf32> {
    %d = arith.subi %i, %j : index
    %wide = arith.index_cast %d : index to i64
    %x = arith.sitofp %wide : i64 to f32
    moa.yield %x : f32
  }
  func.return %r : tensor<64x?xf32>
}
