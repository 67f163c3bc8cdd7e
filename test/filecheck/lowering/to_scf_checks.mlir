// RUN: moa-opt %s -p moa-to-scf | filecheck %s

// A check that fails is reported as its number in `moa.checks`, counted from 1, and the
// two numbers that were compared; all is left alone if none fails.

// CHECK-LABEL: func.func @require(
// CHECK-SAME:    %[[N:.*]]: index, %[[M:.*]]: index, %[[B:.*]]: memref<1xindex> {moa.result}, %[[STATUS:.*]]: memref<3xi64> {moa.status})
// CHECK-SAME:    attributes {moa.checks = ["eq: extents must be equal"]}
func.func @require(%n: index, %m: index, %b: memref<1xindex> {moa.result}, %status: memref<3xi64> {moa.status}) {
  moa.require %n eq %m, "extents must be equal"
  %zero = arith.constant 0 : index
  memref.store %n, %b[%zero] : memref<1xindex>
  func.return
}
// CHECK:       %[[HOLDS:.*]] = arith.cmpi eq, %[[N]], %[[M]] : index
// The rest runs only if it holds.
// CHECK-NEXT:  scf.if %[[HOLDS]] {
// CHECK:         memref.store %[[N]], %[[B]][
// CHECK-NEXT:  } else {
// CHECK-NEXT:    %[[NUMBER:.*]] = arith.constant 1 : i64
// CHECK-NEXT:    %[[GIVEN:.*]] = arith.index_cast %[[N]] : index to i64
// CHECK-NEXT:    %[[EXPECTED:.*]] = arith.index_cast %[[M]] : index to i64
// CHECK:         memref.store %[[NUMBER]], %[[STATUS]][
// CHECK:         memref.store %[[GIVEN]], %[[STATUS]][
// CHECK:         memref.store %[[EXPECTED]], %[[STATUS]][
// CHECK:       }
// CHECK-NEXT:  func.return

// Each relation has its comparison; a check is made only if those before it hold, so
// that the first failure is reported; equal checks have one number.
// CHECK-LABEL: func.func @relations(
// CHECK-SAME:    %[[N:.*]]: index, %[[M:.*]]: index,
// CHECK-SAME:    attributes {moa.checks = ["lt: one", "le: two", "ge: three"]}
func.func @relations(%n: index, %m: index, %status: memref<3xi64> {moa.status}) {
  moa.require %n lt %m, "one"
  moa.require %n le %m, "two"
  moa.require %n ge %m, "three"
  moa.require %m ge %n, "three"
  func.return
}
// CHECK:       arith.cmpi slt, %[[N]], %[[M]] : index
// CHECK:       arith.cmpi sle, %[[N]], %[[M]] : index
// CHECK:       arith.cmpi sge, %[[N]], %[[M]] : index
// CHECK:       arith.cmpi sge, %[[M]], %[[N]] : index
// CHECK:       arith.constant 3 : i64
// CHECK:       arith.constant 3 : i64
// CHECK:       arith.constant 2 : i64
// CHECK:       arith.constant 1 : i64

// An index out of range is reported, and 0 read in its place: never out of bounds.
// CHECK-LABEL: func.func @in_bounds(
// CHECK-SAME:    %[[A:.*]]: memref<?xf64>, %[[I:.*]]: index, %[[N:.*]]: index, %[[STATUS:.*]]: memref<3xi64> {moa.status}) -> f64
// CHECK-SAME:    attributes {moa.checks = ["ge: index out of range", "lt: index out of range"]}
func.func @in_bounds(%a: memref<?xf64>, %i: index, %n: index, %status: memref<3xi64> {moa.status}) -> f64 {
  %k = moa.in_bounds %i in %n, "index out of range"
  %x = memref.load %a[%k] : memref<?xf64>
  func.return %x : f64
}
// CHECK:       %[[ZERO:.*]] = arith.constant 0 : index
// CHECK:       %[[INSIDE:.*]] = arith.cmpi ult, %[[I]], %[[N]] : index
// CHECK:       scf.if
// CHECK:         %[[NEGATIVE:.*]] = arith.cmpi slt, %[[I]], %[[ZERO]] : index
// CHECK-DAG:     %[[BELOW:.*]] = arith.constant 1 : i64
// CHECK-DAG:     %[[ABOVE:.*]] = arith.constant 2 : i64
// CHECK:         arith.select %[[NEGATIVE]], %[[BELOW]], %[[ABOVE]] : i64
// CHECK:         memref.store %{{.*}}, %[[STATUS]][
// CHECK:       }
// CHECK:       %[[K:.*]] = arith.select %[[INSIDE]], %[[I]], %[[ZERO]] : index
// CHECK-NEXT:  memref.load %[[A]][%[[K]]]

// Without checks there is no attribute.
// CHECK-LABEL: func.func @no_check(
// CHECK-NOT:     moa.checks
func.func @no_check(%a: memref<3xf64>) {
  func.return
}
