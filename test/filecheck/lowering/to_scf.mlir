// RUN: moa-opt %s -p moa-to-scf | filecheck %s

// The operational normal form in scf, memref and arith.

// A right fold combines from the last index down, what it has so far on the right.
// CHECK-LABEL: func.func @fold(
// CHECK-SAME:    %[[A:.*]]: memref<?xf64>, %[[N:.*]]: index, %[[M:.*]]: index) -> f64
func.func @fold(%a: memref<?xf64>, %n: index, %m: index) -> f64 {
  %largest = moa.fold max [%k = %n to %m] -> f64 {
    %x = memref.load %a[%k] : memref<?xf64>
    moa.yield %x : f64
  }
  func.return %largest : f64
}
// CHECK-DAG:   %[[ZERO:.*]] = arith.constant 0 : index
// CHECK-DAG:   %[[ONE:.*]] = arith.constant 1 : index
// CHECK-DAG:   %[[COUNT:.*]] = arith.subi %[[M]], %[[N]] : index
// CHECK-DAG:   %[[LAST:.*]] = arith.subi %[[M]], %[[ONE]] : index
// CHECK-DAG:   %[[IDENTITY:.*]] = arith.constant 0xfff0000000000000 : f64
// CHECK:       %[[LARGEST:.*]] = scf.for %[[STEP:.*]] = %[[ZERO]] to %[[COUNT]] step %[[ONE]] iter_args(%[[SO_FAR:.*]] = %[[IDENTITY]]) -> (f64) {
// CHECK-NEXT:    %[[K:.*]] = arith.subi %[[LAST]], %[[STEP]] : index
// CHECK-NEXT:    %[[X:.*]] = memref.load %[[A]][%[[K]]]
// CHECK-NEXT:    %[[NEXT:.*]] = arith.maximumf %[[X]], %[[SO_FAR]] : f64
// CHECK-NEXT:    scf.yield %[[NEXT]] : f64
// CHECK:       func.return %[[LARGEST]] : f64

// A sum of floats starts from -0, which leaves every number as it is; an empty one is 0.
// CHECK-LABEL: func.func @sum_of_floats(
// CHECK-SAME:    %[[A:.*]]: memref<?xf64>, %[[N:.*]]: index, %[[M:.*]]: index) -> f64
func.func @sum_of_floats(%a: memref<?xf64>, %n: index, %m: index) -> f64 {
  %sum = moa.fold add [%k = %n to %m] -> f64 {
    %x = memref.load %a[%k] : memref<?xf64>
    moa.yield %x : f64
  }
  func.return %sum : f64
}
// CHECK-DAG:   %[[EMPTY:.*]] = arith.constant 0.000000e+00 : f64
// CHECK-DAG:   %[[NEUTRAL:.*]] = arith.constant -0.000000e+00 : f64
// CHECK:       %[[IS_SOME:.*]] = arith.cmpi slt, %[[N]], %[[M]] : index
// CHECK-NEXT:  %[[START:.*]] = arith.select %[[IS_SOME]], %[[NEUTRAL]], %[[EMPTY]] : f64
// CHECK:       scf.for {{.*}} iter_args(%[[SO_FAR:.*]] = %[[START]]) -> (f64) {
// CHECK:         arith.addf %{{.*}}, %[[SO_FAR]] : f64

// Without identity element the last element is where it starts.
// CHECK-LABEL: func.func @fold_without_identity(
func.func @fold_without_identity(%a: memref<?xf64>, %n: index, %m: index) -> f64 {
  %s = moa.fold sub [%k = %n to %m] -> f64 {
    %x = memref.load %a[%k] : memref<?xf64>
    moa.yield %x : f64
  }
  func.return %s : f64
}
// CHECK:       scf.for %[[STEP:.*]] = %[[ZERO:.*]] to %{{.*}} step %{{.*}} iter_args(%[[SO_FAR:.*]] = %{{.*}}) -> (f64) {
// CHECK:         %[[X:.*]] = memref.load
// CHECK-NEXT:    %[[FIRST:.*]] = arith.cmpi eq, %[[STEP]], %[[ZERO]] : index
// CHECK-NEXT:    %[[NEXT:.*]] = scf.if %[[FIRST]] -> (f64) {
// CHECK-NEXT:      scf.yield %[[X]] : f64
// CHECK-NEXT:    } else {
// CHECK-NEXT:      %[[DIFFERENCE:.*]] = arith.subf %[[X]], %[[SO_FAR]] : f64
// CHECK-NEXT:      scf.yield %[[DIFFERENCE]] : f64
// CHECK:         scf.yield %[[NEXT]] : f64

// An index that is not in the domain is neither read nor combined.
// CHECK-LABEL: func.func @restricted_fold(
// CHECK-SAME:    %[[A:.*]]: memref<?xf64>, %[[M:.*]]: index, %[[I:.*]]: index) -> f64
func.func @restricted_fold(%a: memref<?xf64>, %m: index, %i: index) -> f64 {
  %zero = arith.constant 0 : index
  %s = moa.fold max [%k = %zero to %m] where affine_set<(d0, d1) : (d1 - d0 >= 0)>(%k, %i) -> f64 {
    %x = memref.load %a[%k] : memref<?xf64>
    moa.yield %x : f64
  }
  func.return %s : f64
}
// CHECK:       scf.for %{{.*}} = %{{.*}} to %{{.*}} step %{{.*}} iter_args(%[[SO_FAR:.*]] = %{{.*}}) -> (f64) {
// CHECK-NEXT:    %[[K:.*]] = arith.subi
// CHECK-NOT:     memref.load
// CHECK:         %[[INSIDE:.*]] = arith.cmpi sge, %{{.*}}, %{{.*}} : index
// CHECK-NEXT:    %[[NEXT:.*]] = scf.if %[[INSIDE]] -> (f64) {
// CHECK-NEXT:      %[[X:.*]] = memref.load %[[A]][%[[K]]]
// CHECK-NEXT:      %[[LARGER:.*]] = arith.maximumf %[[X]], %[[SO_FAR]] : f64
// CHECK-NEXT:      scf.yield %[[LARGER]] : f64
// CHECK-NEXT:    } else {
// CHECK-NEXT:      scf.yield %[[SO_FAR]] : f64
// CHECK:         scf.yield %[[NEXT]] : f64

// A scalar function of the program is inlined, element first.
// CHECK-LABEL: func.func @fold_by_a_function(
func.func @fold_by_a_function(%a: memref<?xf64>, %m: index) -> f64 {
  %zero = arith.constant 0 : index
  %s = moa.fold @second_power [%k = %zero to %m] -> f64 {
    %x = memref.load %a[%k] : memref<?xf64>
    moa.yield %x : f64
  }
  func.return %s : f64
}
// CHECK:       iter_args(%[[SO_FAR:.*]] = %{{.*}}) -> (f64) {
// CHECK:         %[[X:.*]] = memref.load
// CHECK:         %[[SQUARE:.*]] = arith.mulf %[[X]], %[[X]] : f64
// CHECK-NEXT:    arith.addf %[[SQUARE]], %[[SO_FAR]] : f64

func.func private @second_power(%x: f64, %rest: f64) -> f64 {
  %square = arith.mulf %x, %x : f64
  %sum = arith.addf %square, %rest : f64
  func.return %sum : f64
}

// A loop of stride 1 is one already.
// CHECK-LABEL: func.func @loop(
// CHECK-SAME:    %[[B:.*]]: memref<?xf64>, %[[START:.*]]: index, %[[STOP:.*]]: index, %[[X:.*]]: f64)
func.func @loop(%b: memref<?xf64>, %start: index, %stop: index, %x: f64) {
  moa.loop [%i = %start to %stop by 1] {
    memref.store %x, %b[%i] : memref<?xf64>
    moa.yield
  }
  func.return
}
// CHECK:       scf.for %[[I:.*]] = %[[START]] to %[[STOP]] step %{{.*}} {
// CHECK-NEXT:    memref.store %[[X]], %[[B]][%[[I]]]

// A loop of any other counts ceil((start - stop) / |stride|) steps up, ...
// CHECK-LABEL: func.func @loop_of_negative_stride(
// CHECK-SAME:    %[[B:.*]]: memref<?xf64>, %[[START:.*]]: index, %[[STOP:.*]]: index, %[[X:.*]]: f64)
func.func @loop_of_negative_stride(%b: memref<?xf64>, %start: index, %stop: index, %x: f64) {
  moa.loop [%i = %start to %stop by -2] {
    memref.store %x, %b[%i] : memref<?xf64>
    moa.yield
  }
  func.return
}
// CHECK-DAG:   %[[SPAN:.*]] = arith.subi %[[START]], %[[STOP]] : index
// CHECK-DAG:   %[[TWO:.*]] = arith.constant 2 : index
// CHECK:       %[[COUNT:.*]] = arith.ceildivsi %[[SPAN]], %[[TWO]] : index
// CHECK:       scf.for %[[STEP:.*]] = %{{.*}} to %[[COUNT]] step %{{.*}} {
// CHECK-NEXT:    %[[STRIDE:.*]] = arith.constant -2 : index
// CHECK-NEXT:    %[[WAY:.*]] = arith.muli %[[STEP]], %[[STRIDE]] : index
// CHECK-NEXT:    %[[I:.*]] = arith.addi %[[START]], %[[WAY]] : index
// CHECK-NEXT:    memref.store %[[X]], %[[B]][%[[I]]]

// ... also upwards.
// CHECK-LABEL: func.func @loop_of_stride_three(
// CHECK-SAME:    %[[B:.*]]: memref<?xf64>, %[[START:.*]]: index, %[[STOP:.*]]: index, %[[X:.*]]: f64)
func.func @loop_of_stride_three(%b: memref<?xf64>, %start: index, %stop: index, %x: f64) {
  moa.loop [%i = %start to %stop by 3] {
    memref.store %x, %b[%i] : memref<?xf64>
    moa.yield
  }
  func.return
}
// CHECK:       arith.subi %[[STOP]], %[[START]] : index
// CHECK:       scf.for
// CHECK-NEXT:    arith.constant 3 : index

// A flat address is start + index * stride + ..., a flat buffer a view of the whole array.
// CHECK-LABEL: func.func @addresses(
// CHECK-SAME:    %[[A:.*]]: memref<?x4xf64>, %[[START:.*]]: index, %[[I:.*]]: index, %[[J:.*]]: index) -> f64
func.func @addresses(%a: memref<?x4xf64>, %start: index, %i: index, %j: index) -> f64 {
  %m = moa.extent %a, 1 : memref<?x4xf64>
  %one = arith.constant 1 : index
  %flat = moa.rav row %a : memref<?x4xf64> -> memref<?xf64>
  %x = moa.load %flat[%start, %i * %m, %j * %one] : memref<?xf64>
  func.return %x : f64
}
// CHECK:       %[[M:.*]] = arith.constant 4 : index
// CHECK:       %[[ONE:.*]] = arith.constant 1 : index
// CHECK:       memref.dim %[[A]]
// CHECK:       %[[FLAT:.*]] = memref.reinterpret_cast %[[A]] to offset: [0], sizes: [%{{.*}}], strides: [1] : memref<?x4xf64> to memref<?xf64>
// CHECK:       %[[ROWS:.*]] = arith.muli %[[I]], %[[M]] : index
// CHECK:       %[[ROW:.*]] = arith.addi %[[START]], %[[ROWS]] : index
// CHECK:       %[[COLUMNS:.*]] = arith.muli %[[J]], %[[ONE]] : index
// CHECK:       %[[ADDRESS:.*]] = arith.addi %[[ROW]], %[[COLUMNS]] : index
// CHECK:       memref.load %[[FLAT]][%[[ADDRESS]]]

// A buffer lives as long as its block.
// CHECK-LABEL: func.func @buffer(
// CHECK-SAME:    %[[N:.*]]: index, %[[M:.*]]: index)
func.func @buffer(%n: index, %m: index) {
  %zero = arith.constant 0 : index
  moa.loop [%i = %zero to %n by 1] {
    %row = moa.buffer accumulator [%m] : memref<?xf64>
    %x = moa.load %row[%zero] : memref<?xf64>
    moa.yield
  }
  func.return
}
// CHECK:       scf.for
// CHECK:         %[[SIZE:.*]] = arith.muli %{{.*}}, %[[M]] : index
// CHECK-NEXT:    %[[ROW:.*]] = memref.alloc(%[[SIZE]]) : memref<?xf64>
// CHECK-NEXT:    memref.load %[[ROW]][
// CHECK-NEXT:    memref.dealloc %[[ROW]]
// CHECK-NEXT:  }

// What a loop carries, scf.for carries.
// CHECK-LABEL: func.func @carrying(
// CHECK-SAME:    %[[N:.*]]: index, %[[Z:.*]]: f64)
func.func @carrying(%n: index, %z: f64) -> f64 {
  %zero = arith.constant 0 : index
  %r = moa.loop [%i = %n to %zero by -2] with (%s = %z : f64) {
    %t = arith.addf %s, %z : f64
    moa.yield %t : f64
  }
  func.return %r : f64
}
// CHECK:       %[[R:.*]] = scf.for %{{.*}} iter_args(%[[S:.*]] = %[[Z]]) -> (f64) {
// CHECK:         %[[T:.*]] = arith.addf %[[S]], %[[Z]] : f64
// CHECK-NEXT:    scf.yield %[[T]] : f64
// CHECK-NEXT:  }
// CHECK-NEXT:  func.return %[[R]] : f64

// A buffer of a known size lies on the stack, at the entry of the function.
// CHECK-LABEL: func.func @stack(
// CHECK-SAME:    %[[N:.*]]: index)
// CHECK-NEXT:  %[[SIZE:.*]] = arith.constant 96 : index
// CHECK-NEXT:  %[[TILE:.*]] = memref.alloca(%[[SIZE]]) : memref<?xf64>
func.func @stack(%n: index) {
  %zero = arith.constant 0 : index
  %size = arith.constant 96 : index
  moa.loop [%i = %zero to %n by 1] {
    %tile = moa.buffer [%size] : memref<?xf64>
    %x = moa.load %tile[%zero] : memref<?xf64>
    moa.yield
  }
  func.return
}
// CHECK:       scf.for
// CHECK-NEXT:    memref.load %[[TILE]]
// CHECK-NOT:     memref.dealloc
// CHECK:       func.return
