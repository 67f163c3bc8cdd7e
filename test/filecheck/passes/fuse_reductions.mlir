// RUN: moa-opt %s -p 'moa-fuse-reductions{explain=true chunk=64}' | filecheck %s
// RUN: moa-opt %s -p 'moa-fuse-reductions{strict=true}' | filecheck %s --check-prefix=STRICT
// RUN: moa-opt %s -p 'moa-fuse-reductions{chunk=8}' | filecheck %s --check-prefix=CHUNK
// RUN: not moa-opt %s -p 'moa-fuse-reductions{chunk=0}' 2>&1 | filecheck %s --check-prefix=ZERO

// ZERO: moa-fuse-reductions: a chunk has at least one index, got 0

// CHECK: // moa-fuse-reductions @logsumexp
// CHECK-NEXT: passes over the data: 2 before, 1 after
// CHECK-NEXT: pass 0: a fold of max without pivot
// CHECK-NEXT: pass 0: a fold of add, rank one: T = (exp(r0 - r0')) itself
// CHECK: // moa-fuse-reductions @variance
// CHECK-NEXT: passes over the data: 2 before, 1 after
// CHECK: finite rank: T = (1) itself + ((r0 - r0')**2) count + (2*(r0 - r0')) another
// CHECK: // moa-fuse-reductions @refused
// CHECK-NEXT: passes over the data: 2 before, 2 after
// CHECK: a fold of add stays in a later pass: {{.*}}f is not an exponential polynomial
// CHECK: // moa-fuse-reductions @not_relative
// CHECK-NEXT: passes over the data: 2 before, 2 after
// CHECK: a fold of add stays in a later pass: a pivot is not the extreme of the data beside it
// CHECK: // moa-fuse-reductions @may_be_infinite
// CHECK-NEXT: passes over the data: 2 before, 2 after
// CHECK: a fold of max stays in a later pass: T = exp(r0 - r0') may be infinite where the accumulator is 0
// CHECK: // moa-fuse-reductions @no_result_for_places
// CHECK-NEXT: passes over the data: 3 before, 2 after

// CHECK-LABEL: func.func @logsumexp
// CHECK: moa.cascade
// CHECK: group max part
// CHECK: group add pivot
// CHECK: move {
// CHECK-NEXT: ^bb0(%{{.*}}: index, %[[OLD:.*]]: f64, %[[NEW:.*]]: f64, %[[SUM:.*]]: f64):
// CHECK-NEXT: %[[D:.*]] = arith.subf %[[OLD]], %[[NEW]]
// CHECK-NEXT: %[[T:.*]] = math.exp %[[D]]
// CHECK-NEXT: arith.mulf %[[T]], %[[SUM]]

// STRICT-LABEL: func.func @logsumexp
// STRICT-NOT: moa.cascade
// STRICT: moa.fold max
// STRICT: moa.fold add

// CHUNK-LABEL: func.func @logsumexp
// CHUNK: moa.cascade [%{{.*}} to %{{.*}}] chunk 8
func.func @logsumexp(%a: tensor<?x?xf64>) -> tensor<?xf64> {
  %0 = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<?x?xf64>
  %m = moa.extent %a, 1 : tensor<?x?xf64>
  %r = moa.comprehension [%i < %n] -> tensor<?xf64> {
    %top = moa.fold max [%p = %0 to %m] -> f64 {
      %x = moa.at %a[%i, %p] : tensor<?x?xf64>
      moa.yield %x : f64
    }
    %sum = moa.fold add [%p = %0 to %m] -> f64 {
      %x = moa.at %a[%i, %p] : tensor<?x?xf64>
      %d = arith.subf %x, %top : f64
      %e = math.exp %d : f64
      moa.yield %e : f64
    }
    %l = math.log %sum : f64
    %y = arith.addf %top, %l : f64
    moa.yield %y : f64
  }
  func.return %r : tensor<?xf64>
}

// The mean is carried: no sum of the data is accumulated.
// CHECK-LABEL: func.func @variance
// CHECK: moa.cascade
// CHECK: group add, add pivot
// CHECK-NOT: group
// CHECK: func.return
func.func @variance(%a: tensor<?xf64>) -> tensor<f64> {
  %0 = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<?xf64>
  %c = arith.index_cast %n : index to i64
  %count = arith.sitofp %c : i64 to f64
  %r = moa.comprehension [] -> tensor<f64> {
    %s = moa.fold add [%p = %0 to %n] -> f64 {
      %x = moa.at %a[%p] : tensor<?xf64>
      moa.yield %x : f64
    }
    %mean = arith.divf %s, %count : f64
    %q = moa.fold add [%p = %0 to %n] -> f64 {
      %x = moa.at %a[%p] : tensor<?xf64>
      %d = arith.subf %x, %mean : f64
      %dd = arith.mulf %d, %d : f64
      moa.yield %dd : f64
    }
    %v = arith.divf %q, %count : f64
    moa.yield %v : f64
  }
  func.return %r : tensor<f64>
}

// CHECK-LABEL: func.func @refused
// CHECK-NOT: moa.cascade
// CHECK: moa.fold max
// CHECK: moa.fold add
func.func @refused(%a: tensor<?xf64>) -> tensor<f64> {
  %0 = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<?xf64>
  %r = moa.comprehension [] -> tensor<f64> {
    %top = moa.fold max [%p = %0 to %n] -> f64 {
      %x = moa.at %a[%p] : tensor<?xf64>
      moa.yield %x : f64
    }
    %s = moa.fold add [%p = %0 to %n] -> f64 {
      %x = moa.at %a[%p] : tensor<?xf64>
      %d = arith.subf %x, %top : f64
      %t = math.tanh %d : f64
      moa.yield %t : f64
    }
    moa.yield %s : f64
  }
  func.return %r : tensor<f64>
}

// Once minus infinities are all that has been met, the sum is 0 and T infinite.
// CHECK-LABEL: func.func @not_relative
// CHECK-NOT: moa.cascade
// CHECK: moa.fold max
// CHECK: moa.fold add
func.func @not_relative(%a: tensor<?xf64>) -> tensor<f64> {
  %0 = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<?xf64>
  %r = moa.comprehension [] -> tensor<f64> {
    %top = moa.fold max [%p = %0 to %n] -> f64 {
      %x = moa.at %a[%p] : tensor<?xf64>
      moa.yield %x : f64
    }
    %sum = moa.fold add [%p = %0 to %n] -> f64 {
      %x = moa.at %a[%p] : tensor<?xf64>
      %d = arith.addf %x, %top : f64
      %e = math.exp %d : f64
      moa.yield %e : f64
    }
    moa.yield %sum : f64
  }
  func.return %r : tensor<f64>
}

// CHECK-LABEL: func.func @may_be_infinite
// CHECK-NOT: moa.cascade
// CHECK: moa.fold min
// CHECK: moa.fold max
func.func @may_be_infinite(%a: tensor<?xf64>) -> tensor<f64> {
  %0 = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<?xf64>
  %r = moa.comprehension [] -> tensor<f64> {
    %least = moa.fold min [%p = %0 to %n] -> f64 {
      %x = moa.at %a[%p] : tensor<?xf64>
      moa.yield %x : f64
    }
    %most = moa.fold max [%p = %0 to %n] -> f64 {
      %x = moa.at %a[%p] : tensor<?xf64>
      %d = arith.subf %x, %least : f64
      %e = math.exp %d : f64
      moa.yield %e : f64
    }
    moa.yield %most : f64
  }
  func.return %r : tensor<f64>
}

// The place of each kept element is an index: no result holds an array of them, and they
// have no axis around them. Their fold stays where an element is.
// CHECK-LABEL: func.func @no_result_for_places
// CHECK: moa.cascade
// CHECK: group max part
// CHECK: group add pivot
// CHECK: moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<?xf64> {
// CHECK-NEXT: moa.fold add [%{{.*}}] -> index
func.func @no_result_for_places(%a: tensor<?xf64>, %rank: tensor<?xindex>, %b: tensor<?xf64>) -> tensor<?xf64> {
  %0 = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<?xf64>
  %m = moa.extent %b, 0 : tensor<?xf64>
  %r = moa.comprehension [%i < %m] -> tensor<?xf64> {
    %top = moa.fold max [%p = %0 to %n] -> f64 {
      %x = moa.at %a[%p] : tensor<?xf64>
      moa.yield %x : f64
    }
    %sum = moa.fold add [%p = %0 to %n] -> f64 {
      %x = moa.at %a[%p] : tensor<?xf64>
      %d = arith.subf %x, %top : f64
      %e = math.exp %d : f64
      moa.yield %e : f64
    }
    %place = moa.fold add [%p = %0 to %m] -> index {
      %before = moa.fold add [%q = %0 to %p] -> index {
        %k = moa.at %rank[%q] : tensor<?xindex>
        moa.yield %k : index
      }
      %is_it = arith.cmpi eq, %before, %i : index
      %here = arith.select %is_it, %p, %0 : index
      moa.yield %here : index
    }
    %x = moa.at %a[%place] : tensor<?xf64>
    %y = arith.divf %x, %sum : f64
    moa.yield %y : f64
  }
  func.return %r : tensor<?xf64>
}
