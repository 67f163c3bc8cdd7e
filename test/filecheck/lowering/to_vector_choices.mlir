// RUN: moa-opt %s -p 'moa-lift{machine=avx512},moa-to-vector' --split-input-file | filecheck %s

// Rows of two arrays: the memory and the address of a vector are selected.
// CHECK-LABEL: func.func @rows(
// CHECK:         "scf.parallel"
// CHECK:           %[[FIRST:.*]] = arith.cmpi slt
// CHECK:           %[[MEMORY:.*]] = arith.select %[[FIRST]], %{{.*}}, %{{.*}} : memref<?xf32>
// CHECK-NEXT:      %[[ADDRESS:.*]] = arith.select %[[FIRST]], %{{.*}}, %{{.*}} : index
// CHECK-NEXT:      vector.load %[[MEMORY]][%[[ADDRESS]]] : memref<?xf32>, vector<16xf32>
// CHECK:         moa.work = 320 : i64
func.func @rows(%a: tensor<3x64xf32>, %b: tensor<5x64xf32>) -> tensor<8x64xf32> {
  %n = moa.extent %a, 0 : tensor<3x64xf32>
  %k = moa.extent %b, 0 : tensor<5x64xf32>
  %both = arith.addi %n, %k : index
  %m = moa.extent %a, 1 : tensor<3x64xf32>
  %r = moa.comprehension [%i < %both, %j < %m] -> tensor<8x64xf32> {
    %is_first = arith.cmpi slt, %i, %n : index
    %x = scf.if %is_first -> (f32) {
      %y = moa.at %a[%i, %j] : tensor<3x64xf32>
      scf.yield %y : f32
    } else {
      %place = arith.subi %i, %n : index
      %y = moa.at %b[%place, %j] : tensor<5x64xf32>
      scf.yield %y : f32
    }
    moa.yield %x : f32
  }
  func.return %r : tensor<8x64xf32>
}

// -----

// Columns of two arrays: where the lanes of a vector do not agree, loads are masked.
// CHECK-LABEL: func.func @columns(
// CHECK:         %[[DIFFER:.*]] = arith.xori
// CHECK:         scf.if %[[DIFFER]] -> (vector<16xf32>)
// CHECK:           vector.maskedload
// CHECK:           vector.maskedload
// CHECK:           arith.select
// CHECK:         } else {
// CHECK:           scf.if %{{.*}} -> (vector<16xf32>)
// CHECK:             vector.load
// CHECK:           } else {
// CHECK:             vector.load
func.func @columns(%a: tensor<4x40xf32>, %b: tensor<4x24xf32>) -> tensor<4x64xf32> {
  %n = moa.extent %a, 1 : tensor<4x40xf32>
  %k = moa.extent %b, 1 : tensor<4x24xf32>
  %both = arith.addi %n, %k : index
  %m = moa.extent %a, 0 : tensor<4x40xf32>
  %r = moa.comprehension [%i < %m, %j < %both] -> tensor<4x64xf32> {
    %is_first = arith.cmpi slt, %j, %n : index
    %x = scf.if %is_first -> (f32) {
      %y = moa.at %a[%i, %j] : tensor<4x40xf32>
      scf.yield %y : f32
    } else {
      %place = arith.subi %j, %n : index
      %y = moa.at %b[%i, %place] : tensor<4x24xf32>
      scf.yield %y : f32
    }
    moa.yield %x : f32
  }
  func.return %r : tensor<4x64xf32>
}

// -----

// Of a dynamic axis some lanes may have no index.
// CHECK-LABEL: func.func @some(
// CHECK:         %[[MASK:.*]] = vector.create_mask %{{.*}} : vector<16xi1>
// CHECK:         %[[X:.*]] = vector.maskedload %{{.*}}[%{{.*}}], %[[MASK]], %{{.*}}
// CHECK:         vector.maskedstore %{{.*}}[%{{.*}}], %[[MASK]], %{{.*}}
func.func @some(%a: tensor<?xf32>) -> tensor<?xf32> {
  %n = moa.extent %a, 0 : tensor<?xf32>
  %r = moa.comprehension [%i < %n] -> tensor<?xf32> {
    %x = moa.at %a[%i] : tensor<?xf32>
    %y = arith.addf %x, %x : f32
    moa.yield %y : f32
  }
  func.return %r : tensor<?xf32>
}
