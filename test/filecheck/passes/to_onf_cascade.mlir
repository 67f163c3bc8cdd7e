// RUN: moa-opt %s --split-input-file -p moa-to-onf | filecheck %s

// One loop that carries the accumulators and the pivot; a branch leaves out the move
// where nothing has been accumulated.

// CHECK-LABEL: func.func @scalars(
// CHECK:       %[[NONE:.*]] = arith.constant 0 : index
// CHECK:       %[[M:.*]], %[[S:.*]], %[[R:.*]] = moa.loop [%[[P:.*]] = %{{.*}} to %{{.*}} by -1] with (%[[M0:.*]] = %{{.*}} : f64, %[[S0:.*]] = %{{.*}} : f64, %[[R0:.*]] = %{{.*}} : f64) {
// CHECK:         %[[X:.*]] = moa.load
// CHECK-NEXT:    %[[M1:.*]] = arith.maximumf %[[X]], %[[M0]] : f64
// CHECK:         %[[SOME:.*]] = arith.cmpi ne, %{{.*}}, %{{.*}} : index
// CHECK-NEXT:    %[[S1:.*]] = scf.if %[[SOME]] -> (f64) {
// CHECK-NEXT:      %[[D:.*]] = arith.subf %[[R0]], %[[M1]] : f64
// CHECK-NEXT:      %[[E:.*]] = math.exp %[[D]] : f64
// CHECK-NEXT:      %[[T:.*]] = arith.mulf %[[E]], %[[S0]] : f64
// CHECK-NEXT:      scf.yield %[[T]] : f64
// CHECK-NEXT:    } else {
// CHECK-NEXT:      scf.yield %[[S0]] : f64
// CHECK-NEXT:    }
// CHECK-NEXT:    %[[D1:.*]] = arith.subf %[[X]], %[[M1]] : f64
// CHECK-NEXT:    %[[E1:.*]] = math.exp %[[D1]] : f64
// CHECK-NEXT:    %[[S2:.*]] = arith.addf %[[E1]], %[[S1]] : f64
// CHECK-NEXT:    moa.yield %[[M1]], %[[S2]], %[[M1]] : f64, f64, f64
// CHECK-NEXT:  }
// CHECK-NEXT:  moa.store %[[S]], %{{.*}}[%{{.*}}] : memref<?xf64>
func.func @scalars(%a: tensor<?xf64>) -> tensor<f64> {
  %n = moa.extent %a, 0 : tensor<?xf64>
  %c0 = arith.constant 0 : index
  %lowest = arith.constant -1.0e30 : f64
  %m, %s, %r = moa.cascade [%c0 to %n] -> f64, f64, f64 data {
  ^bb0(%p: index):
    %x = moa.at %a[%p] : tensor<?xf64>
    moa.yield %x : f64
  } group max part {
  ^bb0(%p: index, %x: f64):
    moa.yield %x : f64
  } group add pivot %lowest {
  ^bb0(%count: index, %m: f64, %r: f64, %s: f64):
    moa.yield %m : f64
  } part {
  ^bb0(%p: index, %x: f64, %r: f64):
    %d = arith.subf %x, %r : f64
    %e = math.exp %d : f64
    moa.yield %e : f64
  } move {
  ^bb0(%count: index, %old: f64, %new: f64, %s: f64):
    %d = arith.subf %old, %new : f64
    %e = math.exp %d : f64
    %t = arith.mulf %e, %s : f64
    moa.yield %t : f64
  }
  %o = moa.comprehension [] -> tensor<f64> {
    moa.yield %s : f64
  }
  func.return %o : tensor<f64>
}

// -----

// With a chunk, costly data that two loops need is kept in a tile; the row of
// accumulators lies in the result.

// CHECK-LABEL: func.func @chunks(
// CHECK:       %[[RESULT:.*]] = moa.rav row %result
// CHECK:       moa.loop
// CHECK:         moa.store %{{.*}}, %[[RESULT]]
// CHECK:       %[[TILE:.*]] = moa.buffer [%[[CHUNK:.*]]] : memref<?xf64>
// CHECK-NEXT:  moa.loop [%[[HIGH:.*]] = %{{.*}} to %{{.*}} by -96] with
// CHECK-NEXT:    %[[BELOW:.*]] = arith.subi %[[HIGH]], %[[CHUNK]] : index
// CHECK-NEXT:    %[[LOW:.*]] = arith.maxsi %[[BELOW]], %{{.*}} : index
// CHECK:         moa.loop [%[[P:.*]] = %{{.*}} to %{{.*}} by -1] with
// CHECK-NEXT:      %[[OFFSET:.*]] = arith.subi %[[P]], %[[LOW]] : index
// CHECK-NEXT:      moa.load
// CHECK-NEXT:      %[[Y:.*]] = math.sqrt
// CHECK-NEXT:      moa.store %[[Y]], %[[TILE]][%{{.*}}, %[[OFFSET]] * %{{.*}}]
// CHECK-NEXT:      arith.maximumf
// CHECK:         scf.if
// CHECK-NEXT:      arith.divf
// CHECK-NEXT:      moa.loop
// CHECK:             moa.store %{{.*}}, %[[RESULT]]
// CHECK:         moa.loop
// CHECK-NOT:       math.sqrt
// CHECK:           moa.load %[[TILE]]
// CHECK:           moa.store %{{.*}}, %[[RESULT]]
func.func @chunks(%a: tensor<?xf64>, %v: tensor<?x?xf64>) -> tensor<?xf64> {
  %n = moa.extent %a, 0 : tensor<?xf64>
  %e = moa.extent %v, 1 : tensor<?x?xf64>
  %c0 = arith.constant 0 : index
  %lowest = arith.constant -1.0e30 : f64
  %m, %s, %r = moa.cascade [%c0 to %n] chunk 96 -> f64, tensor<?xf64>, f64 data {
  ^bb0(%p: index):
    %x = moa.at %a[%p] : tensor<?xf64>
    %y = math.sqrt %x : f64
    moa.yield %y : f64
  } group max part {
  ^bb0(%p: index, %y: f64):
    moa.yield %y : f64
  } group add pivot %lowest {
  ^bb0(%count: index, %m: f64, %r: f64, %s: tensor<?xf64>):
    moa.yield %m : f64
  } part {
  ^bb0(%p: index, %y: f64, %r: f64):
    %d = arith.divf %y, %r : f64
    %w = moa.comprehension [%l < %e] -> tensor<?xf64> {
      %z = moa.at %v[%p, %l] : tensor<?x?xf64>
      %q = arith.mulf %d, %z : f64
      moa.yield %q : f64
    }
    moa.yield %w : tensor<?xf64>
  } move {
  ^bb0(%count: index, %old: f64, %new: f64, %s: tensor<?xf64>):
    %d = arith.divf %old, %new : f64
    %w = moa.comprehension [%l < %e] -> tensor<?xf64> {
      %z = moa.at %s[%l] : tensor<?xf64>
      %q = arith.mulf %d, %z : f64
      moa.yield %q : f64
    }
    moa.yield %w : tensor<?xf64>
  }
  func.return %s : tensor<?xf64>
}
