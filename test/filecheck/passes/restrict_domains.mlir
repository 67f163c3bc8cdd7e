// RUN: moa-opt %s -p moa-restrict-domains,moa-share | filecheck %s

// A causal mask: `where(p <= i, x, -inf)` under a maximum is a bound of the fold.
// CHECK-LABEL: func.func @causal
// CHECK: moa.comprehension [%[[I:.*]] < %{{.*}}]
// CHECK: %[[NEXT:.*]] = arith.addi %[[I]], %{{.*}} : index
// CHECK: %[[STOP:.*]] = arith.minsi %{{.*}}, %[[NEXT]]
// CHECK: moa.fold max [%{{.*}} = %{{.*}} to %[[STOP]]]
// CHECK-NOT: arith.select
// CHECK: func.return
func.func @causal(%a: tensor<?x?xf64>) -> tensor<?xf64> {
  %0 = arith.constant 0 : index
  %lowest = arith.constant 0xfff0000000000000 : f64
  %n = moa.extent %a, 0 : tensor<?x?xf64>
  %m = moa.extent %a, 1 : tensor<?x?xf64>
  %r = moa.comprehension [%i < %n] -> tensor<?xf64> {
    %s = moa.fold max [%p = %0 to %m] -> f64 {
      %c = arith.cmpi sge, %i, %p : index
      %x = moa.at %a[%i, %p] : tensor<?x?xf64>
      %y = arith.select %c, %x, %lowest : f64
      moa.yield %y : f64
    }
    moa.yield %s : f64
  }
  func.return %r : tensor<?xf64>
}

// A window: both bounds. An exponential of minus infinity is 0, so a sum is restricted.
// CHECK-LABEL: func.func @window
// CHECK: %[[START:.*]] = arith.maxsi
// CHECK: %[[STOP:.*]] = arith.minsi
// CHECK: moa.fold add [%{{.*}} = %[[START]] to %[[STOP]]]
// CHECK-NOT: arith.select
// CHECK: func.return
func.func @window(%a: tensor<?x?xf64>) -> tensor<?xf64> {
  %0 = arith.constant 0 : index
  %w = arith.constant 3 : index
  %lowest = arith.constant 0xfff0000000000000 : f64
  %n = moa.extent %a, 0 : tensor<?x?xf64>
  %m = moa.extent %a, 1 : tensor<?x?xf64>
  %r = moa.comprehension [%i < %n] -> tensor<?xf64> {
    %s = moa.fold add [%p = %0 to %m] -> f64 {
      %left = arith.subi %i, %w : index
      %after = arith.cmpi slt, %left, %p : index
      %before = arith.cmpi sge, %i, %p : index
      %c = arith.andi %after, %before : i1
      %x = moa.at %a[%i, %p] : tensor<?x?xf64>
      %y = arith.select %c, %x, %lowest : f64
      %e = math.exp %y : f64
      moa.yield %e : f64
    }
    moa.yield %s : f64
  }
  func.return %r : tensor<?xf64>
}

// Not the identity of the function: where p > i, 0 is added, which is; but 1 is not.
// CHECK-LABEL: func.func @not_restricted
// CHECK: moa.fold add [%{{.*}} = %{{.*}} to %{{.*}}]
// CHECK: arith.select
func.func @not_restricted(%a: tensor<?x?xf64>) -> tensor<?xf64> {
  %0 = arith.constant 0 : index
  %one = arith.constant 1.0 : f64
  %n = moa.extent %a, 0 : tensor<?x?xf64>
  %m = moa.extent %a, 1 : tensor<?x?xf64>
  %r = moa.comprehension [%i < %n] -> tensor<?xf64> {
    %s = moa.fold add [%p = %0 to %m] -> f64 {
      %c = arith.cmpi sge, %i, %p : index
      %x = moa.at %a[%i, %p] : tensor<?x?xf64>
      %y = arith.select %c, %x, %one : f64
      moa.yield %y : f64
    }
    moa.yield %s : f64
  }
  func.return %r : tensor<?xf64>
}

// A condition on data stays; the one on indices beside it becomes a bound.
// CHECK-LABEL: func.func @data_beside_indices
// CHECK: %[[STOP:.*]] = arith.minsi
// CHECK: moa.fold add [%{{.*}} = %{{.*}} to %[[STOP]]]
// CHECK: %[[HOLDS:.*]] = arith.cmpi eq
// CHECK: arith.select %[[HOLDS]]
func.func @data_beside_indices(%a: tensor<?xf64>, %d: tensor<?xindex>) -> tensor<?xf64> {
  %0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f64
  %n = moa.extent %a, 0 : tensor<?xf64>
  %r = moa.comprehension [%i < %n] -> tensor<?xf64> {
    %s = moa.fold add [%p = %0 to %n] -> f64 {
      %c = arith.cmpi slt, %p, %i : index
      %di = moa.at %d[%i] : tensor<?xindex>
      %dp = moa.at %d[%p] : tensor<?xindex>
      %same = arith.cmpi eq, %di, %dp : index
      %both = arith.andi %c, %same : i1
      %x = moa.at %a[%p] : tensor<?xf64>
      %y = arith.select %both, %x, %zero : f64
      moa.yield %y : f64
    }
    moa.yield %s : f64
  }
  func.return %r : tensor<?xf64>
}
