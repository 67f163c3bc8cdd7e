// RUN: moa-opt %s -p 'moa-fuse-reductions{emit=merge}' | filecheck %s
// RUN: moa-opt %s -p 'moa-fuse-reductions{emit=merge},moa-to-onf,moa-check-storage' | filecheck %s --check-prefix=ONF
// RUN: not moa-opt %s -p 'moa-fuse-reductions{emit=split}' 2>&1 | filecheck %s --check-prefix=UNKNOWN
// RUN: not moa-opt %s -p 'moa-fuse-reductions{emit=merge strict=true}' 2>&1 | filecheck %s --check-prefix=STRICT
// RUN: not moa-opt %s -p 'moa-fuse-reductions{emit=merge},moa-fuse-reductions{emit=merge}' 2>&1 | filecheck %s --check-prefix=TWICE

// UNKNOWN: moa-fuse-reductions: unknown functions to emit: expected merge, got split
// STRICT: moa-fuse-reductions: @logsumexp: emit=merge expects one fused cascade, got none
// TWICE: moa-fuse-reductions: @logsumexp.identity: emit=merge expects one fused cascade, got none

// ONF-LABEL: func.func @logsumexp.state
// ONF-LABEL: func.func @logsumexp.identity
// ONF-LABEL: func.func @logsumexp.merge
// ONF-LABEL: func.func @logsumexp.finish

// CHECK-LABEL: func.func @logsumexp(

// The state of a part: the cascade over the part, and how long it is.
// CHECK-LABEL: func.func @logsumexp.state(%a: tensor<3x?xf64>)
// CHECK-SAME: -> (tensor<3xf64>, tensor<3xf64>, tensor<index>)
// CHECK: %[[N:.*]] = moa.extent %a, 1
// CHECK: %[[MAX:.*]], %[[SUM:.*]], %{{.*}} = moa.cascade [%{{.*}} to %[[N]]]
// CHECK: moa.yield %[[MAX]], %[[SUM]] : f64, f64
// CHECK: moa.yield %[[N]] : index

// CHECK-LABEL: func.func @logsumexp.identity(%a: tensor<3x?xf64>)
// CHECK-DAG: %[[NONE:.*]] = arith.constant 0xfff0000000000000 : f64
// CHECK-DAG: moa.yield %[[NONE]] : f64

// Both sums go to the pivot of both parts; a part without indices leaves the other as
// it is.
// CHECK-LABEL: func.func @logsumexp.merge(
// CHECK-SAME: %a_max: tensor<3xf64>, %a_add: tensor<3xf64>, %a_count: tensor<index>
// CHECK-SAME: %b_max: tensor<3xf64>, %b_add: tensor<3xf64>, %b_count: tensor<index>
// CHECK: %[[COUNT:.*]] = arith.addi
// CHECK: %[[A:.*]] = moa.at %a_max
// CHECK: %[[B:.*]] = moa.at %b_max
// CHECK: %[[BOTH:.*]] = arith.maximumf %[[A]], %[[B]]
// CHECK: %[[NEW:.*]] = arith.maximumf %[[BOTH]],
// CHECK: %[[DA:.*]] = arith.subf %{{.*}}, %[[NEW]]
// CHECK: %[[TA:.*]] = math.exp %[[DA]]
// CHECK: arith.mulf %[[TA]],
// CHECK: %[[DB:.*]] = arith.subf %{{.*}}, %[[NEW]]
// CHECK: %[[TB:.*]] = math.exp %[[DB]]
// CHECK: arith.mulf %[[TB]],
// CHECK: arith.select
// CHECK: moa.yield %[[COUNT]] : index

// CHECK-LABEL: func.func @logsumexp.finish(
// CHECK-SAME: %max: tensor<3xf64>, %add: tensor<3xf64>, %count: tensor<index>) -> tensor<3xf64>
// CHECK-NOT: moa.cascade
// CHECK: math.log
func.func @logsumexp(%a: tensor<3x8xf64>) -> tensor<3xf64> {
  %0 = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<3x8xf64>
  %m = moa.extent %a, 1 : tensor<3x8xf64>
  %r = moa.comprehension [%i < %n] -> tensor<3xf64> {
    %top = moa.fold max [%p = %0 to %m] -> f64 {
      %x = moa.at %a[%i, %p] : tensor<3x8xf64>
      moa.yield %x : f64
    }
    %sum = moa.fold add [%p = %0 to %m] -> f64 {
      %x = moa.at %a[%i, %p] : tensor<3x8xf64>
      %d = arith.subf %x, %top : f64
      %e = math.exp %d : f64
      moa.yield %e : f64
    }
    %l = math.log %sum : f64
    %y = arith.addf %top, %l : f64
    moa.yield %y : f64
  }
  func.return %r : tensor<3xf64>
}
