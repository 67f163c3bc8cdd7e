// RUN: moa-opt %s -p moa-share | filecheck %s

// Equal sub-expressions are one, where their free indices are bound.

// The names of indices do not matter: both folds are the sum of row i.
// CHECK-LABEL: func.func @equal_folds_are_merged(
// CHECK-SAME:    %[[A:.*]]: tensor<3x4xf64>)
func.func @equal_folds_are_merged(%a: tensor<3x4xf64>) -> tensor<3xf64> {
  %n = moa.extent %a, 0 : tensor<3x4xf64>
  %m = moa.extent %a, 1 : tensor<3x4xf64>
  %zero = arith.constant 0 : index
  %b = moa.comprehension [%i < %n] -> tensor<3xf64> {
    %left = moa.fold add [%k = %zero to %m] -> f64 {
      %x = moa.at %a[%i, %k] : tensor<3x4xf64>
      moa.yield %x : f64
    }
    %right = moa.fold add [%l = %zero to %m] -> f64 {
      %x = moa.at %a[%i, %l] : tensor<3x4xf64>
      moa.yield %x : f64
    }
    %square = arith.mulf %left, %right : f64
    moa.yield %square : f64
  }
  func.return %b : tensor<3xf64>
}
// CHECK:       moa.comprehension
// CHECK-NEXT:    %[[SUM:.*]] = moa.fold add
// CHECK-NOT:     moa.fold
// CHECK:         arith.mulf %[[SUM]], %[[SUM]] : f64

// Their functions, bounds and bodies do.
// CHECK-LABEL: func.func @unequal_folds_are_kept(
func.func @unequal_folds_are_kept(%a: tensor<3x4xf64>) -> tensor<3xf64> {
  %n = moa.extent %a, 0 : tensor<3x4xf64>
  %m = moa.extent %a, 1 : tensor<3x4xf64>
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %b = moa.comprehension [%i < %n] -> tensor<3xf64> {
    %sum = moa.fold add [%k = %zero to %m] -> f64 {
      %x = moa.at %a[%i, %k] : tensor<3x4xf64>
      moa.yield %x : f64
    }
    %largest = moa.fold max [%k = %zero to %m] -> f64 {
      %x = moa.at %a[%i, %k] : tensor<3x4xf64>
      moa.yield %x : f64
    }
    %tail = moa.fold add [%k = %one to %m] -> f64 {
      %x = moa.at %a[%i, %k] : tensor<3x4xf64>
      moa.yield %x : f64
    }
    %s = arith.addf %sum, %largest : f64
    %t = arith.addf %s, %tail : f64
    moa.yield %t : f64
  }
  func.return %b : tensor<3xf64>
}
// CHECK:       moa.comprehension
// CHECK:         %[[SUM:.*]] = moa.fold add
// CHECK:         %[[LARGEST:.*]] = moa.fold max
// CHECK:         %[[TAIL:.*]] = moa.fold add
// CHECK:         arith.addf %[[SUM]], %[[LARGEST]] : f64
// CHECK:         arith.addf %{{.*}}, %[[TAIL]] : f64

// A value moves out as far as what it depends on allows.
// CHECK-LABEL: func.func @values_move_to_where_their_indices_are_bound(
// CHECK-SAME:    %[[A:.*]]: tensor<3xf64>, %[[B:.*]]: tensor<4xf64>, %[[S:.*]]: tensor<f64>)
func.func @values_move_to_where_their_indices_are_bound(%a: tensor<3xf64>, %b: tensor<4xf64>, %s: tensor<f64>) -> tensor<3xf64> {
  %n = moa.extent %a, 0 : tensor<3xf64>
  %m = moa.extent %b, 0 : tensor<4xf64>
  %zero = arith.constant 0 : index
  %c = moa.comprehension [%i < %n] -> tensor<3xf64> {
    %sum = moa.fold add [%k = %zero to %m] -> f64 {
      %free = moa.at %s[] : tensor<f64>
      %of_i = moa.at %a[%i] : tensor<3xf64>
      %e = math.exp %of_i : f64
      %of_k = moa.at %b[%k] : tensor<4xf64>
      %x = arith.mulf %e, %of_k : f64
      %y = arith.mulf %free, %x : f64
      moa.yield %y : f64
    }
    moa.yield %sum : f64
  }
  func.return %c : tensor<3xf64>
}
// CHECK:       moa.at %[[S]][]
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}]
// CHECK-NEXT:    %[[X:.*]] = moa.at %[[A]][%[[I]]]
// CHECK-NEXT:    %[[E:.*]] = math.exp %[[X]] : f64
// CHECK-NEXT:    moa.fold add [%[[K:.*]] =
// CHECK-NEXT:      moa.at %[[B]][%[[K]]]

// A fold that uses the index around it stays there, and all of it.
// CHECK-LABEL: func.func @a_dependent_fold_stays(
// CHECK-SAME:    %[[A:.*]]: tensor<3x4xf64>)
func.func @a_dependent_fold_stays(%a: tensor<3x4xf64>) -> tensor<f64> {
  %n = moa.extent %a, 0 : tensor<3x4xf64>
  %m = moa.extent %a, 1 : tensor<3x4xf64>
  %zero = arith.constant 0 : index
  %b = moa.comprehension [] -> tensor<f64> {
    %largest = moa.fold max [%k = %zero to %n] -> f64 {
      %sum = moa.fold add [%l = %zero to %m] -> f64 {
        %x = moa.at %a[%k, %l] : tensor<3x4xf64>
        moa.yield %x : f64
      }
      moa.yield %sum : f64
    }
    moa.yield %largest : f64
  }
  func.return %b : tensor<f64>
}
// CHECK:       moa.fold max [%[[K:.*]] =
// CHECK-NEXT:    moa.fold add [%[[L:.*]] =
// CHECK-NEXT:      moa.at %[[A]][%[[K]], %[[L]]]

// Division of integers is not evaluated where it would not have been: the fold may be empty.
// CHECK-LABEL: func.func @integer_division_stays(
func.func @integer_division_stays(%s: tensor<i64>, %b: tensor<?xi64>) -> tensor<i64> {
  %m = moa.extent %b, 0 : tensor<?xi64>
  %zero = arith.constant 0 : index
  %c = moa.comprehension [] -> tensor<i64> {
    %sum = moa.fold add [%k = %zero to %m] -> i64 {
      %d = moa.at %s[] : tensor<i64>
      %q = arith.divsi %d, %d : i64
      moa.yield %q : i64
    }
    moa.yield %sum : i64
  }
  func.return %c : tensor<i64>
}
// CHECK:       %[[D:.*]] = moa.at
// CHECK:       moa.fold add
// CHECK-NEXT:    arith.divsi %[[D]], %[[D]] : i64

// By a number above 0 it is defined for every dividend, and moves.
// CHECK-LABEL: func.func @integer_division_by_a_positive_number_moves(
func.func @integer_division_by_a_positive_number_moves(%s: tensor<index>, %b: tensor<?xindex>) -> tensor<index> {
  %m = moa.extent %b, 0 : tensor<?xindex>
  %zero = arith.constant 0 : index
  %two = arith.constant 2 : index
  %three = moa.fixed_extent 3
  %c = moa.comprehension [] -> tensor<index> {
    %d = moa.at %s[] : tensor<index>
    %sum = moa.fold add [%k = %zero to %m] -> index {
      %q = arith.divui %d, %two : index
      %r = arith.remui %d, %three : index
      %none = arith.divui %d, %zero : index
      %qr = arith.addi %q, %r : index
      %t = arith.addi %qr, %none : index
      moa.yield %t : index
    }
    moa.yield %sum : index
  }
  func.return %c : tensor<index>
}
// CHECK-DAG:   %[[D:.*]] = moa.at
// CHECK-DAG:   %[[Q:.*]] = arith.divui %[[D]], %{{.*}} : index
// CHECK-DAG:   %[[R:.*]] = arith.remui %[[D]], %{{.*}} : index
// CHECK-DAG:   %[[QR:.*]] = arith.addi %[[Q]], %[[R]] : index
// CHECK:       moa.fold add
// CHECK-NEXT:    arith.divui %[[D]], %{{.*}} : index

// Nor is anything evaluated that a branch does not choose: there may be no such element.
// CHECK-LABEL: func.func @branches_keep_what_they_evaluate(
// CHECK-SAME:    %[[A:.*]]: tensor<?xf64>, %[[HOLDS:.*]]: i1)
func.func @branches_keep_what_they_evaluate(%a: tensor<?xf64>, %holds: i1) -> tensor<f64> {
  %zero = arith.constant 0 : index
  %b = moa.comprehension [] -> tensor<f64> {
    %x = scf.if %holds -> (f64) {
      %first = moa.at %a[%zero] : tensor<?xf64>
      scf.yield %first : f64
    } else {
      %none = arith.constant 0.0 : f64
      scf.yield %none : f64
    }
    moa.yield %x : f64
  }
  func.return %b : tensor<f64>
}
// CHECK:       scf.if %[[HOLDS]] -> (f64) {
// CHECK-NEXT:    moa.at %[[A]][

// Results over the same axes are computed together, and share what they have in common.
// CHECK-LABEL: func.func @results_over_the_same_axes_are_merged(
// CHECK-SAME:    %[[A:.*]]: tensor<3x4xf64>)
func.func @results_over_the_same_axes_are_merged(%a: tensor<3x4xf64>) -> (tensor<3xf64>, tensor<3xf64>) {
  %n = moa.extent %a, 0 : tensor<3x4xf64>
  %m = moa.extent %a, 1 : tensor<3x4xf64>
  %zero = arith.constant 0 : index
  %b = moa.comprehension [%i < %n] -> tensor<3xf64> {
    %sum = moa.fold add [%k = %zero to %m] -> f64 {
      %x = moa.at %a[%i, %k] : tensor<3x4xf64>
      moa.yield %x : f64
    }
    moa.yield %sum : f64
  }
  %c = moa.comprehension [%j < %n] -> tensor<3xf64> {
    %sum = moa.fold add [%l = %zero to %m] -> f64 {
      %x = moa.at %a[%j, %l] : tensor<3x4xf64>
      moa.yield %x : f64
    }
    %e = math.exp %sum : f64
    moa.yield %e : f64
  }
  func.return %b, %c : tensor<3xf64>, tensor<3xf64>
}
// CHECK:       %[[B:.*]], %[[C:.*]] = moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<3xf64>, tensor<3xf64>
// CHECK-NEXT:    %[[SUM:.*]] = moa.fold add [%[[K:.*]] =
// CHECK-NEXT:      moa.at %[[A]][%[[I]], %[[K]]]
// CHECK-NOT:     moa.fold
// CHECK:         %[[E:.*]] = math.exp %[[SUM]] : f64
// CHECK-NEXT:    moa.yield %[[SUM]], %[[E]] : f64, f64
// CHECK-NOT:   moa.comprehension
// CHECK:       func.return %[[B]], %[[C]] :

// An axis is an extent, not the number that it happens to be.
// CHECK-LABEL: func.func @results_over_other_axes_are_kept(
func.func @results_over_other_axes_are_kept(%a: tensor<3x3xf64>) -> (tensor<3xf64>, tensor<3xf64>) {
  %n = moa.extent %a, 0 : tensor<3x3xf64>
  %m = moa.extent %a, 1 : tensor<3x3xf64>
  %zero = arith.constant 0 : index
  %b = moa.comprehension [%i < %n] -> tensor<3xf64> {
    %x = moa.at %a[%i, %zero] : tensor<3x3xf64>
    moa.yield %x : f64
  }
  %c = moa.comprehension [%j < %m] -> tensor<3xf64> {
    %x = moa.at %a[%zero, %j] : tensor<3x3xf64>
    moa.yield %x : f64
  }
  func.return %b, %c : tensor<3xf64>, tensor<3xf64>
}
// CHECK:       %[[B:.*]] = moa.comprehension
// CHECK:       %[[C:.*]] = moa.comprehension
// CHECK:       func.return %[[B]], %[[C]] :

// Beside the columns of an array without any there is nothing to fold early: the loop
// over the columns is over nothing.
// CHECK-LABEL: func.func @a_fold_of_elements_that_are_not_there_stays(
func.func @a_fold_of_elements_that_are_not_there_stays(%a: tensor<2x0xf64>) -> tensor<2x0xf64> {
  %n = moa.extent %a, 0 : tensor<2x0xf64>
  %m = moa.extent %a, 1 : tensor<2x0xf64>
  %zero = arith.constant 0 : index
  %b = moa.comprehension [%i < %n, %j < %m] -> tensor<2x0xf64> {
    %sum = moa.fold add [%k = %zero to %n] -> f64 {
      %x = moa.at %a[%k, %zero] : tensor<2x0xf64>
      moa.yield %x : f64
    }
    moa.yield %sum : f64
  }
  func.return %b : tensor<2x0xf64>
}
// CHECK:       moa.comprehension
// CHECK-NEXT:    moa.fold add
