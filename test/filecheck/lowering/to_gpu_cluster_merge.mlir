// RUN: moa-opt %s -p 'moa-lift{target=nvptx schedule="p=chunk:128,threads:64,cluster:2"},moa-to-gpu' | filecheck %s

// Two groups have halves of each row. A group takes half of the chunks, leaves what it
// has of the maximum, of the sum, and of the pivot that it is relative to, in shared
// memory, and reads those of both after they have met. Each sum is moved to the new
// pivot, and added if there is something. Each group then writes every other block of
// the row, 256 elements after the one before.

// CHECK-LABEL: func.func @softmax
// CHECK-DAG:   [[ONE:%[0-9]+]] = arith.constant 1 : index
// CHECK-DAG:   [[TWO:%[0-9]+]] = arith.constant 2 : index
// CHECK-DAG:   [[STEP:%[0-9]+]] = arith.constant 256 : index
// CHECK:       "gpu.launch"
// CHECK:         [[SLOTS:%[0-9]+]] = memref.view {{.*}} to memref<3x64xf32, #gpu.address_space<workgroup>>
// CHECK:         [[TOP:%[0-9]+]], [[TOTAL:%[0-9]+]], [[PIVOT:%[0-9]+]] = scf.for
// CHECK:         memref.store [[TOP]], [[SLOTS]]
// CHECK-NEXT:    memref.store [[TOTAL]], [[SLOTS]]
// CHECK-NEXT:    memref.store [[PIVOT]], [[SLOTS]]
// CHECK-NEXT:    "nvvm.cluster.arrive"
// CHECK-NEXT:    "nvvm.cluster.wait"
// CHECK:         scf.for [[PART:%[0-9]+]] = {{%[0-9]+}} to [[TWO]] step [[ONE]] iter_args([[MAX:%[0-9]+]] = {{%[0-9]+}}, [[SUM:%[0-9]+]] = {{%[0-9]+}}, [[OLD:%[0-9]+]] = {{%[0-9]+}})
// CHECK:           "nvvm.mapa"
// CHECK:           [[PEER_MAX:%[0-9]+]] = llvm.load {{%[0-9]+}} : !llvm.ptr<7> -> f32
// CHECK:           [[PEER_SUM:%[0-9]+]] = llvm.load {{%[0-9]+}} : !llvm.ptr<7> -> f32
// CHECK:           [[PEER_OLD:%[0-9]+]] = llvm.load {{%[0-9]+}} : !llvm.ptr<7> -> f32
// CHECK:           [[BOTH:%[0-9]+]] = arith.maximumf [[PEER_MAX]], [[MAX]]
// CHECK:           [[NEW:%[0-9]+]] = arith.maximumf [[BOTH]], {{%[0-9]+}}
// CHECK:           [[D:%[0-9]+]] = arith.subf [[PEER_OLD]], [[NEW]]
// CHECK-NEXT:      [[E:%[0-9]+]] = math.exp [[D]]
// CHECK-NEXT:      [[F:%[0-9]+]] = arith.mulf [[E]], [[PEER_SUM]]
// CHECK-NEXT:      [[G:%[0-9]+]] = arith.select {{%[0-9]+}}, [[F]], [[PEER_SUM]]
// CHECK:           arith.subf [[OLD]], [[NEW]]
// CHECK:           [[H:%[0-9]+]] = arith.mulf {{%[0-9]+}}, [[SUM]]
// CHECK-NEXT:      [[I:%[0-9]+]] = arith.addf [[G]], [[H]]
// CHECK-NEXT:      scf.yield [[BOTH]], [[I]], [[NEW]]
// CHECK:         scf.for {{%[0-9]+}} = {{%[0-9]+}} to {{%[0-9]+}} step [[STEP]]
// CHECK:           "vector.store"
// CHECK:         "nvvm.cluster.arrive"
// CHECK-NEXT:    "nvvm.cluster.wait"
// CHECK:       nvvm.cluster_dim = array<i32: 2, 1, 1>
func.func @softmax(%x: tensor<3x1000xf32>) -> tensor<3x1000xf32> {
  %0 = moa.extent %x, 0 : tensor<3x1000xf32>
  %1 = moa.extent %x, 1 : tensor<3x1000xf32>
  %2 = arith.constant 0 : index
  %3 = arith.constant -3.40282347e+38 : f32
  %4 = moa.comprehension [%i < %0] -> tensor<3x1000xf32> {
    %5, %6, %7 = moa.cascade [%2 to %1] chunk 64 -> f32, f32, f32 data {
    ^bb0(%p: index):
      %8 = moa.at %x[%i, %p] : tensor<3x1000xf32>
      moa.yield %8 : f32
    } group max part {
    ^bb0(%p_1: index, %x_1: f32):
      moa.yield %x_1 : f32
    } group add pivot %3 {
    ^bb0(%count: index, %a: f32, %r: f32, %a_1: f32):
      %9 = arith.maximumf %a, %3 : f32
      moa.yield %9 : f32
    } part {
    ^bb0(%p_2: index, %x_2: f32, %r_1: f32):
      %10 = arith.subf %x_2, %r_1 : f32
      %11 = math.exp %10 : f32
      moa.yield %11 : f32
    } move {
    ^bb0(%count_1: index, %old: f32, %new: f32, %a_2: f32):
      %12 = arith.subf %old, %new : f32
      %13 = math.exp %12 : f32
      %14 = arith.mulf %13, %a_2 : f32
      moa.yield %14 : f32
    }
    %15 = moa.comprehension [%j < %1] -> tensor<1000xf32> {
      %16 = moa.at %x[%i, %j] : tensor<3x1000xf32>
      %17 = arith.subf %16, %5 : f32
      %18 = math.exp %17 : f32
      %19 = arith.divf %18, %6 : f32
      moa.yield %19 : f32
    }
    moa.yield %15 : tensor<1000xf32>
  }
  func.return %4 : tensor<3x1000xf32>
}
