// RUN: moa-opt %s -p 'moa-split-cascades{parts=4},moa-verify' | filecheck %s
// RUN: moa-opt %s -p 'moa-split-cascades{parts=4}' | moa-opt | filecheck %s
// RUN: moa-opt %s -p 'moa-split-cascades{parts=4},moa-to-onf,moa-check-storage' | filecheck %s --check-prefix=ONF
// RUN: moa-opt %s -p 'moa-split-cascades{places=4 work=10000}' | filecheck %s --check-prefix=AUTO
// RUN: moa-opt %s -p 'moa-split-cascades' | filecheck %s --check-prefix=NONE
// RUN: not moa-opt %s -p 'moa-split-cascades{parts=0}' 2>&1 | filecheck %s --check-prefix=ZERO

// ZERO: moa-split-cascades: parts is auto or at least 1, got 0

// What a part contributes is its sum, moved from its own maximum to the new one.

// CHECK-LABEL: func.func @logsumexp
// CHECK: %[[PARTS:.*]] = moa.fixed_extent 4
// CHECK: %[[MAX:.*]], %[[SUM:.*]], %[[PIVOT:.*]] = moa.comprehension [%{{.*}} < %{{.*}}, %[[S:.*]] < %[[PARTS]]] -> tensor<2x4xf64>, tensor<2x4xf64>, tensor<2x4xf64>
// CHECK: %[[START:.*]] = arith.muli %[[S]], %[[LENGTH:.*]] :
// CHECK: %[[END:.*]] = arith.addi %[[START]], %[[LENGTH]] :
// CHECK: %[[STOP:.*]] = arith.minsi %{{.*}}, %[[END]] :
// CHECK: moa.cascade [%[[START]] to %[[STOP]]] chunk 64
// CHECK: {moa.parts}
// CHECK: moa.comprehension [%{{.*}} < %{{.*}}] -> tensor<2xf64>
// CHECK: moa.cascade [%{{.*}} to %{{.*}}] chunk 64 -> f64, f64, f64 data {
// CHECK: } group max part {
// CHECK: } group add pivot
// CHECK: arith.maximumf
// CHECK: } part {
// CHECK-NEXT: ^bb0(%{{.*}}: index, %{{.*}}: f64, %[[OWN:.*]]: f64, %[[OLD:.*]]: f64, %[[NEW:.*]]: f64):
// CHECK-NEXT: %[[D:.*]] = arith.subf %[[OLD]], %[[NEW]]
// CHECK-NEXT: %[[T:.*]] = math.exp %[[D]]
// CHECK-NEXT: %[[MOVED:.*]] = arith.mulf %[[T]], %[[OWN]]
// CHECK-NEXT: moa.yield %[[MOVED]]
// CHECK: } move {
// CHECK: math.log

// ONF-LABEL: func.func @logsumexp
// ONF: moa.buffer accumulator [%{{.*}}, %{{.*}}] {moa.parts} : memref<?xf64>

// AUTO-LABEL: func.func @logsumexp
// AUTO: moa.fixed_extent 2

// NONE-LABEL: func.func @logsumexp
// NONE-NOT: moa.parts

func.func @logsumexp(%a: tensor<2x1000xf64>) -> tensor<2xf64> {
  %rows = moa.extent %a, 0 : tensor<2x1000xf64>
  %n = moa.extent %a, 1 : tensor<2x1000xf64>
  %c0 = arith.constant 0 : index
  %lowest = arith.constant -1.7976931348623157e+308 : f64
  %c = moa.comprehension [%i < %rows] -> tensor<2xf64> {
    %m, %s, %r = moa.cascade [%c0 to %n] chunk 64 -> f64, f64, f64 data {
    ^bb0(%p: index):
      %x = moa.at %a[%i, %p] : tensor<2x1000xf64>
      moa.yield %x : f64
    } group max part {
    ^bb0(%p: index, %x: f64):
      moa.yield %x : f64
    } group add pivot %lowest {
    ^bb0(%count: index, %max: f64, %old: f64, %sum: f64):
      %finite = arith.maximumf %max, %lowest : f64
      moa.yield %finite : f64
    } part {
    ^bb0(%p: index, %x: f64, %pivot: f64):
      %d = arith.subf %x, %pivot : f64
      %e = math.exp %d : f64
      moa.yield %e : f64
    } move {
    ^bb0(%count: index, %old: f64, %new: f64, %sum: f64):
      %d = arith.subf %old, %new : f64
      %t = math.exp %d : f64
      %moved = arith.mulf %t, %sum : f64
      moa.yield %moved : f64
    }
    %log = math.log %s : f64
    %lse = arith.addf %log, %m : f64
    moa.yield %lse : f64
  }
  func.return %c : tensor<2xf64>
}

// Two cascades in a row are left as they are.

// CHECK-LABEL: func.func @two
// CHECK-NOT: moa.parts
func.func @two(%a: tensor<1000xf64>) -> tensor<f64> {
  %n = moa.extent %a, 0 : tensor<1000xf64>
  %c0 = arith.constant 0 : index
  %c = moa.comprehension [] -> tensor<f64> {
    %m, %s = moa.cascade [%c0 to %n] -> f64, f64 data {
    ^bb0(%p: index):
      %x = moa.at %a[%p] : tensor<1000xf64>
      moa.yield %x : f64
    } group max, add part {
    ^bb0(%p: index, %x: f64):
      moa.yield %x, %x : f64, f64
    }
    %u, %v = moa.cascade [%c0 to %n] -> f64, f64 data {
    ^bb0(%p: index):
      %x = moa.at %a[%p] : tensor<1000xf64>
      %d = arith.subf %x, %m : f64
      moa.yield %d : f64
    } group min, add part {
    ^bb0(%p: index, %x: f64):
      moa.yield %x, %x : f64, f64
    }
    %t = arith.addf %s, %v : f64
    %w = arith.addf %t, %u : f64
    moa.yield %w : f64
  }
  func.return %c : tensor<f64>
}
