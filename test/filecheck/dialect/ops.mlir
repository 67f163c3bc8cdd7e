// RUN: MOA_ROUNDTRIP

// The array algebra

// CHECK-LABEL: func.func @constant
// CHECK-NEXT: %{{.*}} = moa.constant dense<3.140000e+00> : tensor<f64>
// CHECK-NEXT: %{{.*}} = moa.constant dense<[1, 2]> : tensor<2xindex>
// CHECK-NEXT: %{{.*}} = moa.constant dense<[0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000]> : tensor<3xf64>
// CHECK-NEXT: %{{.*}} = moa.constant dense<0xff80> : tensor<bf16>
func.func @constant() -> tensor<2xindex> {
  %pi = moa.constant dense<3.14> : tensor<f64>
  %v = moa.constant dense<[1, 2]> : tensor<2xindex>
  %not_finite = moa.constant dense<[0x7FF0000000000000, 0xFFF0000000000000, 0x7FF8000000000000]> : tensor<3xf64>
  %lowest = moa.constant dense<0xFF80> : tensor<bf16>
  func.return %v : tensor<2xindex>
}

// CHECK-LABEL: func.func @iota
// CHECK-SAME: (%[[N:.*]]: tensor<index>, %[[V:.*]]: tensor<2xi64>)
// CHECK-NEXT: %{{.*}} = moa.iota %[[N]] : tensor<index> -> tensor<?xindex>
// CHECK-NEXT: %{{.*}} = moa.iota %[[V]] : tensor<2xi64> -> tensor<?x?x2xindex>
func.func @iota(%n: tensor<index>, %v: tensor<2xi64>) -> tensor<?xindex> {
  %k = moa.iota %n : tensor<index> -> tensor<?xindex>
  %i = moa.iota %v : tensor<2xi64> -> tensor<?x?x2xindex>
  func.return %k : tensor<?xindex>
}

// CHECK-LABEL: func.func @shapes
// CHECK-SAME: (%[[A:.*]]: tensor<3x?xf64>)
// CHECK-NEXT: %{{.*}} = moa.shape %[[A]] : tensor<3x?xf64> -> tensor<2xindex>
// CHECK-NEXT: %{{.*}} = moa.dim %[[A]] : tensor<3x?xf64> -> tensor<index>
// CHECK-NEXT: %{{.*}} = moa.total %[[A]] : tensor<3x?xf64> -> tensor<index>
func.func @shapes(%a: tensor<3x?xf64>) -> tensor<index> {
  %s = moa.shape %a : tensor<3x?xf64> -> tensor<2xindex>
  %d = moa.dim %a : tensor<3x?xf64> -> tensor<index>
  %t = moa.total %a : tensor<3x?xf64> -> tensor<index>
  func.return %t : tensor<index>
}

// CHECK-LABEL: func.func @psi
// CHECK-SAME: (%[[I:.*]]: tensor<1xindex>, %[[P:.*]]: tensor<5x2xindex>, %[[A:.*]]: tensor<3x4xf64>)
// CHECK-NEXT: %{{.*}} = moa.psi %[[I]], %[[A]] : tensor<1xindex>, tensor<3x4xf64> -> tensor<4xf64>
// CHECK-NEXT: %{{.*}} = moa.psi %[[P]], %[[A]] : tensor<5x2xindex>, tensor<3x4xf64> -> tensor<5xf64>
func.func @psi(%i: tensor<1xindex>, %p: tensor<5x2xindex>, %a: tensor<3x4xf64>) -> tensor<4xf64> {
  %row = moa.psi %i, %a : tensor<1xindex>, tensor<3x4xf64> -> tensor<4xf64>
  %some = moa.psi %p, %a : tensor<5x2xindex>, tensor<3x4xf64> -> tensor<5xf64>
  func.return %row : tensor<4xf64>
}

// CHECK-LABEL: func.func @cell
// CHECK-SAME: (%[[I:.*]]: index, %[[A:.*]]: tensor<3x4xf64>)
// CHECK-NEXT: %{{.*}} = moa.cell %[[A]][%[[I]]] : tensor<3x4xf64> -> tensor<4xf64>
func.func @cell(%i: index, %a: tensor<3x4xf64>) -> tensor<4xf64> {
  %c = moa.cell %a[%i] : tensor<3x4xf64> -> tensor<4xf64>
  func.return %c : tensor<4xf64>
}

// CHECK-LABEL: func.func @transpose
// CHECK-SAME: (%[[A:.*]]: tensor<3x4x5xf64>)
// CHECK-NEXT: %{{.*}} = moa.transpose %[[A]] : tensor<3x4x5xf64> -> tensor<5x4x3xf64>
// CHECK-NEXT: %{{.*}} = moa.transpose %[[A]] [1, 2, 0] : tensor<3x4x5xf64> -> tensor<5x3x4xf64>
func.func @transpose(%a: tensor<3x4x5xf64>) -> tensor<5x3x4xf64> {
  %b = moa.transpose %a : tensor<3x4x5xf64> -> tensor<5x4x3xf64>
  %c = moa.transpose %a [1, 2, 0] : tensor<3x4x5xf64> -> tensor<5x3x4xf64>
  func.return %c : tensor<5x3x4xf64>
}

// CHECK-LABEL: func.func @take_and_drop
// CHECK-SAME: (%[[K:.*]]: tensor<index>, %[[V:.*]]: tensor<2xi32>, %[[A:.*]]: tensor<4x?xf64>)
// CHECK-NEXT: %[[TWO:.*]] = moa.constant dense<-2> : tensor<index>
// CHECK-NEXT: %{{.*}} = moa.take %[[TWO]], %[[A]] : tensor<index>, tensor<4x?xf64> -> tensor<2x?xf64>
// CHECK-NEXT: %{{.*}} = moa.take %[[K]], %[[A]] : tensor<index>, tensor<4x?xf64> -> tensor<?x?xf64>
// CHECK-NEXT: %{{.*}} = moa.take %[[V]], %[[A]] : tensor<2xi32>, tensor<4x?xf64> -> tensor<?x?xf64>
// CHECK-NEXT: %{{.*}} = moa.drop %[[TWO]], %[[A]] : tensor<index>, tensor<4x?xf64> -> tensor<2x?xf64>
// CHECK-NEXT: %{{.*}} = moa.drop %[[V]], %[[A]] : tensor<2xi32>, tensor<4x?xf64> -> tensor<?x?xf64>
func.func @take_and_drop(%k: tensor<index>, %v: tensor<2xi32>, %a: tensor<4x?xf64>) -> tensor<?x?xf64> {
  %two = moa.constant dense<-2> : tensor<index>
  %b = moa.take %two, %a : tensor<index>, tensor<4x?xf64> -> tensor<2x?xf64>
  %c = moa.take %k, %a : tensor<index>, tensor<4x?xf64> -> tensor<?x?xf64>
  %d = moa.take %v, %a : tensor<2xi32>, tensor<4x?xf64> -> tensor<?x?xf64>
  %e = moa.drop %two, %a : tensor<index>, tensor<4x?xf64> -> tensor<2x?xf64>
  %f = moa.drop %v, %a : tensor<2xi32>, tensor<4x?xf64> -> tensor<?x?xf64>
  func.return %f : tensor<?x?xf64>
}

// CHECK-LABEL: func.func @cat
// CHECK-SAME: (%[[A:.*]]: tensor<2x3xf64>, %[[B:.*]]: tensor<?x3xf64>, %[[X:.*]]: tensor<f64>)
// CHECK-NEXT: %{{.*}} = moa.cat %[[A]], %[[A]] : tensor<2x3xf64>, tensor<2x3xf64> -> tensor<4x3xf64>
// CHECK-NEXT: %{{.*}} = moa.cat %[[A]], %[[B]] : tensor<2x3xf64>, tensor<?x3xf64> -> tensor<?x3xf64>
// CHECK-NEXT: %{{.*}} = moa.cat %[[X]], %[[A]] : tensor<f64>, tensor<2x3xf64> -> tensor<3x3xf64>
// CHECK-NEXT: %{{.*}} = moa.cat %[[X]], %[[X]] : tensor<f64>, tensor<f64> -> tensor<2xf64>
func.func @cat(%a: tensor<2x3xf64>, %b: tensor<?x3xf64>, %x: tensor<f64>) -> tensor<?x3xf64> {
  %c = moa.cat %a, %a : tensor<2x3xf64>, tensor<2x3xf64> -> tensor<4x3xf64>
  %d = moa.cat %a, %b : tensor<2x3xf64>, tensor<?x3xf64> -> tensor<?x3xf64>
  %e = moa.cat %x, %a : tensor<f64>, tensor<2x3xf64> -> tensor<3x3xf64>
  %f = moa.cat %x, %x : tensor<f64>, tensor<f64> -> tensor<2xf64>
  func.return %d : tensor<?x3xf64>
}

// CHECK-LABEL: func.func @reverse_and_rotate
// CHECK-SAME: (%[[K:.*]]: tensor<i64>, %[[A:.*]]: tensor<2x3xf64>, %[[X:.*]]: tensor<f64>)
// CHECK-NEXT: %{{.*}} = moa.reverse %[[A]] : tensor<2x3xf64> -> tensor<2x3xf64>
// CHECK-NEXT: %{{.*}} = moa.reverse %[[X]] : tensor<f64> -> tensor<f64>
// CHECK-NEXT: %{{.*}} = moa.rotate %[[K]], %[[A]] : tensor<i64>, tensor<2x3xf64> -> tensor<2x3xf64>
func.func @reverse_and_rotate(%k: tensor<i64>, %a: tensor<2x3xf64>, %x: tensor<f64>) -> tensor<2x3xf64> {
  %b = moa.reverse %a : tensor<2x3xf64> -> tensor<2x3xf64>
  %c = moa.reverse %x : tensor<f64> -> tensor<f64>
  %d = moa.rotate %k, %a : tensor<i64>, tensor<2x3xf64> -> tensor<2x3xf64>
  func.return %d : tensor<2x3xf64>
}

// CHECK-LABEL: func.func @reshape_and_ravel
// CHECK-SAME: (%[[T:.*]]: tensor<2xindex>, %[[A:.*]]: tensor<4x6xf64>, %[[B:.*]]: tensor<4x?xf64>)
// CHECK-NEXT: %[[U:.*]] = moa.constant dense<[2, 12]> : tensor<2xindex>
// CHECK-NEXT: %{{.*}} = moa.reshape %[[T]], %[[A]] : tensor<2xindex>, tensor<4x6xf64> -> tensor<?x?xf64>
// CHECK-NEXT: %{{.*}} = moa.reshape %[[U]], %[[A]] : tensor<2xindex>, tensor<4x6xf64> -> tensor<2x12xf64>
// CHECK-NEXT: %{{.*}} = moa.ravel %[[A]] : tensor<4x6xf64> -> tensor<24xf64>
// CHECK-NEXT: %{{.*}} = moa.ravel %[[B]] : tensor<4x?xf64> -> tensor<?xf64>
func.func @reshape_and_ravel(%t: tensor<2xindex>, %a: tensor<4x6xf64>, %b: tensor<4x?xf64>) -> tensor<?xf64> {
  %u = moa.constant dense<[2, 12]> : tensor<2xindex>
  %c = moa.reshape %t, %a : tensor<2xindex>, tensor<4x6xf64> -> tensor<?x?xf64>
  %d = moa.reshape %u, %a : tensor<2xindex>, tensor<4x6xf64> -> tensor<2x12xf64>
  %e = moa.ravel %a : tensor<4x6xf64> -> tensor<24xf64>
  %f = moa.ravel %b : tensor<4x?xf64> -> tensor<?xf64>
  func.return %f : tensor<?xf64>
}

// CHECK-LABEL: func.func @product_gamma_and_inverse
// CHECK-SAME: (%[[I:.*]]: tensor<2xindex>, %[[S:.*]]: tensor<2xi32>, %[[J:.*]]: tensor<?x2xi64>, %[[K:.*]]: tensor<i64>)
// CHECK-NEXT: %{{.*}} = moa.product %[[S]] : tensor<2xi32> -> tensor<i32>
// CHECK-NEXT: %{{.*}} = moa.gamma row %[[I]], %[[S]] : tensor<2xindex>, tensor<2xi32> -> tensor<index>
// CHECK-NEXT: %[[L:.*]] = moa.gamma column %[[J]], %[[S]] : tensor<?x2xi64>, tensor<2xi32> -> tensor<?xindex>
// CHECK-NEXT: %{{.*}} = moa.gamma_inverse row %[[K]], %[[S]] : tensor<i64>, tensor<2xi32> -> tensor<2xindex>
// CHECK-NEXT: %{{.*}} = moa.gamma_inverse column %[[L]], %[[S]] : tensor<?xindex>, tensor<2xi32> -> tensor<?x2xindex>
func.func @product_gamma_and_inverse(%i: tensor<2xindex>, %s: tensor<2xi32>, %j: tensor<?x2xi64>, %k: tensor<i64>) -> tensor<?x2xindex> {
  %p = moa.product %s : tensor<2xi32> -> tensor<i32>
  %x = moa.gamma row %i, %s : tensor<2xindex>, tensor<2xi32> -> tensor<index>
  %l = moa.gamma column %j, %s : tensor<?x2xi64>, tensor<2xi32> -> tensor<?xindex>
  %m = moa.gamma_inverse row %k, %s : tensor<i64>, tensor<2xi32> -> tensor<2xindex>
  %n = moa.gamma_inverse column %l, %s : tensor<?xindex>, tensor<2xi32> -> tensor<?x2xindex>
  func.return %n : tensor<?x2xindex>
}

// CHECK-LABEL: func.func @recycle
// CHECK-SAME: (%[[T:.*]]: tensor<2xindex>, %[[A:.*]]: tensor<4x6xf64>)
// CHECK-NEXT: %[[U:.*]] = moa.constant dense<[2, 5]> : tensor<2xindex>
// CHECK-NEXT: %{{.*}} = moa.recycle %[[T]], %[[A]] : tensor<2xindex>, tensor<4x6xf64> -> tensor<?x?xf64>
// CHECK-NEXT: %{{.*}} = moa.recycle %[[U]], %[[A]] : tensor<2xindex>, tensor<4x6xf64> -> tensor<2x5xf64>
func.func @recycle(%t: tensor<2xindex>, %a: tensor<4x6xf64>) -> tensor<2x5xf64> {
  %u = moa.constant dense<[2, 5]> : tensor<2xindex>
  %b = moa.recycle %t, %a : tensor<2xindex>, tensor<4x6xf64> -> tensor<?x?xf64>
  %c = moa.recycle %u, %a : tensor<2xindex>, tensor<4x6xf64> -> tensor<2x5xf64>
  func.return %c : tensor<2x5xf64>
}

// CHECK-LABEL: func.func @pad_and_insert
// CHECK-SAME: (%[[V:.*]]: tensor<2xi32>, %[[A:.*]]: tensor<4x?xf64>, %[[B:.*]]: tensor<2x?xf64>)
// CHECK-NEXT: %[[ONE:.*]] = moa.constant dense<1> : tensor<index>
// CHECK-NEXT: %{{.*}} = moa.pad %[[ONE]], %[[ONE]], %[[A]] : tensor<index>, tensor<index>, tensor<4x?xf64> -> tensor<6x?xf64>
// CHECK-NEXT: %{{.*}} = moa.pad %[[V]], %[[V]], %[[A]] : tensor<2xi32>, tensor<2xi32>, tensor<4x?xf64> -> tensor<?x?xf64>
// CHECK-NEXT: %{{.*}} = moa.insert %[[ONE]], %[[B]], %[[A]] : tensor<index>, tensor<2x?xf64>, tensor<4x?xf64> -> tensor<4x?xf64>
// CHECK-NEXT: %{{.*}} = moa.insert %[[V]], %[[B]], %[[A]] : tensor<2xi32>, tensor<2x?xf64>, tensor<4x?xf64> -> tensor<4x?xf64>
func.func @pad_and_insert(%v: tensor<2xi32>, %a: tensor<4x?xf64>, %b: tensor<2x?xf64>) -> tensor<4x?xf64> {
  %one = moa.constant dense<1> : tensor<index>
  %c = moa.pad %one, %one, %a : tensor<index>, tensor<index>, tensor<4x?xf64> -> tensor<6x?xf64>
  %d = moa.pad %v, %v, %a : tensor<2xi32>, tensor<2xi32>, tensor<4x?xf64> -> tensor<?x?xf64>
  %e = moa.insert %one, %b, %a : tensor<index>, tensor<2x?xf64>, tensor<4x?xf64> -> tensor<4x?xf64>
  %f = moa.insert %v, %b, %a : tensor<2xi32>, tensor<2x?xf64>, tensor<4x?xf64> -> tensor<4x?xf64>
  func.return %f : tensor<4x?xf64>
}

// CHECK-LABEL: func.func @compress_and_expand
// CHECK-SAME: (%[[V:.*]]: tensor<4xi1>, %[[A:.*]]: tensor<4x6xf64>)
// CHECK-NEXT: %[[W:.*]] = moa.constant dense<[true, false, true, false]> : tensor<4xi1>
// CHECK-NEXT: %{{.*}} = moa.compress %[[V]], %[[A]] : tensor<4xi1>, tensor<4x6xf64> -> tensor<?x6xf64>
// CHECK-NEXT: %[[B:.*]] = moa.compress %[[W]], %[[A]] : tensor<4xi1>, tensor<4x6xf64> -> tensor<2x6xf64>
// CHECK-NEXT: %{{.*}} = moa.expand %[[V]], %[[B]] : tensor<4xi1>, tensor<2x6xf64> -> tensor<4x6xf64>
func.func @compress_and_expand(%v: tensor<4xi1>, %a: tensor<4x6xf64>) -> tensor<4x6xf64> {
  %w = moa.constant dense<[true, false, true, false]> : tensor<4xi1>
  %b = moa.compress %v, %a : tensor<4xi1>, tensor<4x6xf64> -> tensor<?x6xf64>
  %c = moa.compress %w, %a : tensor<4xi1>, tensor<4x6xf64> -> tensor<2x6xf64>
  %d = moa.expand %v, %c : tensor<4xi1>, tensor<2x6xf64> -> tensor<4x6xf64>
  func.return %d : tensor<4x6xf64>
}

// CHECK-LABEL: func.func @grade
// CHECK-SAME: (%[[V:.*]]: tensor<?xf64>, %[[W:.*]]: tensor<4xi32>)
// CHECK-NEXT: %{{.*}} = moa.grade_up %[[V]] : tensor<?xf64> -> tensor<?xindex>
// CHECK-NEXT: %{{.*}} = moa.grade_down %[[W]] : tensor<4xi32> -> tensor<4xindex>
func.func @grade(%v: tensor<?xf64>, %w: tensor<4xi32>) -> tensor<4xindex> {
  %p = moa.grade_up %v : tensor<?xf64> -> tensor<?xindex>
  %q = moa.grade_down %w : tensor<4xi32> -> tensor<4xindex>
  func.return %q : tensor<4xindex>
}

// CHECK-LABEL: func.func @pointwise
// CHECK-SAME: (%[[A:.*]]: tensor<?xf64>, %[[B:.*]]: tensor<f64>)
// CHECK-NEXT: %{{.*}} = moa.pointwise add %[[A]], %[[B]] : tensor<?xf64>, tensor<f64> -> tensor<?xf64>
// CHECK-NEXT: %{{.*}} = moa.pointwise lt %[[B]], %[[A]] : tensor<f64>, tensor<?xf64> -> tensor<?xi1>
// CHECK-NEXT: %{{.*}} = moa.pointwise @hypotenuse %[[A]], %[[A]] : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
func.func @pointwise(%a: tensor<?xf64>, %b: tensor<f64>) -> tensor<?xf64> {
  %c = moa.pointwise add %a, %b : tensor<?xf64>, tensor<f64> -> tensor<?xf64>
  %d = moa.pointwise lt %b, %a : tensor<f64>, tensor<?xf64> -> tensor<?xi1>
  %e = moa.pointwise @hypotenuse %a, %a : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
  func.return %c : tensor<?xf64>
}

func.func private @hypotenuse(%x: f64, %y: f64) -> f64 {
  %xx = arith.mulf %x, %x : f64
  %yy = arith.mulf %y, %y : f64
  %s = arith.addf %xx, %yy : f64
  %r = math.sqrt %s : f64
  func.return %r : f64
}

// CHECK-LABEL: func.func @map
// CHECK-SAME: (%[[A:.*]]: tensor<3xf64>)
// CHECK-NEXT: %{{.*}} = moa.map exp %[[A]] : tensor<3xf64> -> tensor<3xf64>
// CHECK-NEXT: %{{.*}} = moa.map @square %[[A]] : tensor<3xf64> -> tensor<3xf64>
func.func @map(%a: tensor<3xf64>) -> tensor<3xf64> {
  %b = moa.map exp %a : tensor<3xf64> -> tensor<3xf64>
  %c = moa.map @square %a : tensor<3xf64> -> tensor<3xf64>
  func.return %c : tensor<3xf64>
}

func.func private @square(%x: f64) -> f64 {
  %y = arith.mulf %x, %x : f64
  func.return %y : f64
}

// CHECK-LABEL: func.func @cast
// CHECK-SAME: (%[[A:.*]]: tensor<3xindex>)
// CHECK-NEXT: %{{.*}} = moa.cast %[[A]] : tensor<3xindex> -> tensor<3xbf16>
func.func @cast(%a: tensor<3xindex>) -> tensor<3xbf16> {
  %b = moa.cast %a : tensor<3xindex> -> tensor<3xbf16>
  func.return %b : tensor<3xbf16>
}

// CHECK-LABEL: func.func @where
// CHECK-SAME: (%[[C:.*]]: tensor<3xi1>, %[[A:.*]]: tensor<3xf64>, %[[B:.*]]: tensor<f64>)
// CHECK-NEXT: %{{.*}} = moa.where %[[C]], %[[A]], %[[B]] : tensor<3xi1>, tensor<3xf64>, tensor<f64> -> tensor<3xf64>
func.func @where(%c: tensor<3xi1>, %a: tensor<3xf64>, %b: tensor<f64>) -> tensor<3xf64> {
  %d = moa.where %c, %a, %b : tensor<3xi1>, tensor<3xf64>, tensor<f64> -> tensor<3xf64>
  func.return %d : tensor<3xf64>
}

// CHECK-LABEL: func.func @reduce
// CHECK-SAME: (%[[A:.*]]: tensor<?x4xf64>)
// CHECK-NEXT: %{{.*}} = moa.reduce add %[[A]] : tensor<?x4xf64> -> tensor<4xf64>
// CHECK-NEXT: %{{.*}} = moa.reduce @hypotenuse %[[A]] : tensor<?x4xf64> -> tensor<4xf64>
func.func @reduce(%a: tensor<?x4xf64>) -> tensor<4xf64> {
  %s = moa.reduce add %a : tensor<?x4xf64> -> tensor<4xf64>
  %h = moa.reduce @hypotenuse %a : tensor<?x4xf64> -> tensor<4xf64>
  func.return %s : tensor<4xf64>
}

// CHECK-LABEL: func.func @scan
// CHECK-SAME: (%[[A:.*]]: tensor<?x4xf64>)
// CHECK-NEXT: %{{.*}} = moa.scan sub %[[A]] : tensor<?x4xf64> -> tensor<?x4xf64>
// CHECK-NEXT: %{{.*}} = moa.scan @hypotenuse %[[A]] : tensor<?x4xf64> -> tensor<?x4xf64>
func.func @scan(%a: tensor<?x4xf64>) -> tensor<?x4xf64> {
  %s = moa.scan sub %a : tensor<?x4xf64> -> tensor<?x4xf64>
  %h = moa.scan @hypotenuse %a : tensor<?x4xf64> -> tensor<?x4xf64>
  func.return %s : tensor<?x4xf64>
}

// CHECK-LABEL: func.func @products
// CHECK-SAME: (%[[A:.*]]: tensor<3x4xf64>, %[[B:.*]]: tensor<4x?xf64>)
// CHECK-NEXT: %{{.*}} = moa.outer mul %[[A]], %[[B]] : tensor<3x4xf64>, tensor<4x?xf64> -> tensor<3x4x4x?xf64>
// CHECK-NEXT: %{{.*}} = moa.inner add mul %[[A]], %[[B]] : tensor<3x4xf64>, tensor<4x?xf64> -> tensor<3x?xf64>
func.func @products(%a: tensor<3x4xf64>, %b: tensor<4x?xf64>) -> tensor<3x?xf64> {
  %c = moa.outer mul %a, %b : tensor<3x4xf64>, tensor<4x?xf64> -> tensor<3x4x4x?xf64>
  %d = moa.inner add mul %a, %b : tensor<3x4xf64>, tensor<4x?xf64> -> tensor<3x?xf64>
  func.return %d : tensor<3x?xf64>
}

// CHECK-LABEL: func.func @omega
// CHECK-SAME: (%[[A:.*]]: tensor<3x4xf64>)
// CHECK-NEXT: %[[M:.*]] = moa.omega @maximum <1> (%[[A]]) : (tensor<3x4xf64>) -> tensor<3xf64>
// CHECK-NEXT: %{{.*}} = moa.omega sub <1, 0> (%[[A]], %[[M]]) : (tensor<3x4xf64>, tensor<3xf64>) -> tensor<3x4xf64>
func.func @omega(%a: tensor<3x4xf64>) -> tensor<3x4xf64> {
  %m = moa.omega @maximum <1> (%a) : (tensor<3x4xf64>) -> tensor<3xf64>
  %z = moa.omega sub <1, 0> (%a, %m) : (tensor<3x4xf64>, tensor<3xf64>) -> tensor<3x4xf64>
  func.return %z : tensor<3x4xf64>
}

func.func private @maximum(%row: tensor<?xf64>) -> tensor<f64> {
  %m = moa.reduce max %row : tensor<?xf64> -> tensor<f64>
  func.return %m : tensor<f64>
}

// The denotational normal form

// CHECK-LABEL: func.func @extents
// CHECK-SAME: (%[[A:.*]]: tensor<?x4xf64>)
// CHECK-NEXT: %[[N:.*]] = moa.extent %[[A]], 0 : tensor<?x4xf64>
// CHECK-NEXT: %[[M:.*]] = moa.extent %[[A]], 1 : tensor<?x4xf64>
// CHECK-NEXT: %[[THREE:.*]] = moa.fixed_extent 3
// CHECK-NEXT: moa.require %[[N]] eq %[[M]], "expected a square"
// CHECK-NEXT: moa.require %[[N]] ge %[[THREE]], "too small"
// CHECK-NEXT: %{{.*}} = moa.in_bounds %[[M]] in %[[N]], "out of range"
func.func @extents(%a: tensor<?x4xf64>) {
  %n = moa.extent %a, 0 : tensor<?x4xf64>
  %m = moa.extent %a, 1 : tensor<?x4xf64>
  %3 = moa.fixed_extent 3
  moa.require %n eq %m, "expected a square"
  moa.require %n ge %3, "too small"
  %k = moa.in_bounds %m in %n, "out of range"
  func.return
}

// CHECK-LABEL: func.func @comprehensions
// CHECK-SAME: (%[[N:.*]]: index, %[[M:.*]]: index, %[[A:.*]]: tensor<?x?xf64>)
// CHECK-NEXT: %{{.*}}, %{{.*}} = moa.comprehension [%[[I:.*]] < %[[N]], %[[J:.*]] < %[[M]]] order [1, 0] -> tensor<?x?xf64>, tensor<?x?xi1> {
// CHECK-NEXT: %[[X:.*]] = moa.at %[[A]][%[[I]], %[[J]]] : tensor<?x?xf64>
// CHECK-NEXT: %[[B:.*]] = arith.cmpf ogt, %[[X]], %[[X]] : f64
// CHECK-NEXT: moa.yield %[[X]], %[[B]] : f64, i1
// CHECK-NEXT: }
// CHECK-NEXT: %{{.*}} = moa.comprehension [] -> tensor<f64> {
func.func @comprehensions(%n: index, %m: index, %a: tensor<?x?xf64>) -> tensor<f64> {
  %c, %d = moa.comprehension [%i < %n, %j < %m] order [1, 0] -> tensor<?x?xf64>, tensor<?x?xi1> {
    %x = moa.at %a[%i, %j] : tensor<?x?xf64>
    %b = arith.cmpf ogt, %x, %x : f64
    moa.yield %x, %b : f64, i1
  }
  %e = moa.comprehension [] -> tensor<f64> {
    %x = moa.at %a[%n, %n] : tensor<?x?xf64>
    moa.yield %x : f64
  }
  func.return %e : tensor<f64>
}

// CHECK-LABEL: func.func @folds
// CHECK-SAME: (%[[L:.*]]: index, %[[N:.*]]: index, %[[A:.*]]: tensor<?xf64>)
// CHECK-NEXT: %{{.*}} = moa.fold add [%[[K:.*]] = %[[L]] to %[[N]]] -> f64 {
// CHECK-NEXT: %[[X:.*]] = moa.at %[[A]][%[[K]]] : tensor<?xf64>
// CHECK-NEXT: moa.yield %[[X]] : f64
// CHECK-NEXT: }
// CHECK-NEXT: %{{.*}} = moa.fold max [%[[K:.*]] = %[[L]] to %[[N]]] where affine_set<(d0, d1) : ((d1 + (d0 * -1)) >= 0)>(%[[K]], %[[N]]) -> tensor<?xf64> {
// CHECK-NEXT: moa.yield %[[A]] : tensor<?xf64>
// CHECK-NEXT: }
// CHECK-NEXT: %{{.*}} = moa.fold @hypotenuse [%{{.*}} = %[[L]] to %[[N]]] -> f64 {
func.func @folds(%l: index, %n: index, %a: tensor<?xf64>) -> f64 {
  %s = moa.fold add [%k = %l to %n] -> f64 {
    %x = moa.at %a[%k] : tensor<?xf64>
    moa.yield %x : f64
  }
  %m = moa.fold max [%k = %l to %n] where affine_set<(d0, d1) : (d1 - d0 >= 0)>(%k, %n) -> tensor<?xf64> {
    moa.yield %a : tensor<?xf64>
  }
  %h = moa.fold @hypotenuse [%k = %l to %n] -> f64 {
    moa.yield %s : f64
  }
  func.return %h : f64
}

// The operational normal form

// CHECK-LABEL: func.func @loops
// CHECK-SAME: (%[[A:.*]]: memref<3x4xf64>, %[[N:.*]]: index)
// CHECK-NEXT: %[[R:.*]] = moa.rav row %[[A]] : memref<3x4xf64> -> memref<?xf64>
// CHECK-NEXT: %{{.*}} = moa.rav column %[[A]] : memref<3x4xf64> -> memref<?xf64>
// CHECK-NEXT: %[[S:.*]] = moa.buffer [%[[N]], %[[N]]] : memref<?xf64>
// CHECK-NEXT: %{{.*}} = moa.buffer accumulator [] : memref<?xf64>
// CHECK-NEXT: moa.loop [%[[I:.*]] = %[[N]] to %[[N]] by -2] {
// CHECK-NEXT: %[[X:.*]] = moa.load %[[R]][%[[N]], %[[I]] * %[[N]], %[[N]] * %[[I]]] : memref<?xf64>
// CHECK-NEXT: moa.store %[[X]], %[[S]][%[[I]]] : memref<?xf64>
// CHECK-NEXT: moa.yield
// CHECK-NEXT: }
func.func @loops(%a: memref<3x4xf64>, %n: index) {
  %r = moa.rav row %a : memref<3x4xf64> -> memref<?xf64>
  %c = moa.rav column %a : memref<3x4xf64> -> memref<?xf64>
  %s = moa.buffer [%n, %n] : memref<?xf64>
  %t = moa.buffer accumulator [] : memref<?xf64>
  moa.loop [%i = %n to %n by -2] {
    %x = moa.load %r[%n, %i * %n, %n * %i] : memref<?xf64>
    moa.store %x, %s[%i] : memref<?xf64>
    moa.yield
  }
  func.return
}

// Attributes of no meaning to the dialect are kept.

// CHECK-LABEL: func.func @attributes
// CHECK: moa.map exp %{{.*}} {note = 1 : i64} : tensor<3xf64> -> tensor<3xf64>
// CHECK-NEXT: moa.extent %{{.*}}, 0 {note = 2 : i64} : tensor<3xf64>
// CHECK-NEXT: moa.fixed_extent 3 {note = 3 : i64}
// CHECK-NEXT: moa.require %{{.*}} eq %{{.*}}, "equal" {note = 4 : i64}
// CHECK-NEXT: moa.in_bounds %{{.*}} in %{{.*}}, "out" {note = 5 : i64}
// CHECK-NEXT: moa.comprehension
// CHECK: moa.at %{{.*}}[%{{.*}}] {note = 6 : i64} : tensor<3xf64>
// CHECK: moa.fold
// CHECK-NEXT: moa.yield %{{.*}} : f64 {note = 7 : i64}
// CHECK-NEXT: } {note = 8 : i64}
// CHECK: } {note = 9 : i64}
// CHECK: moa.rav row %{{.*}} {note = 10 : i64} : memref<3xf64> -> memref<?xf64>
// CHECK-NEXT: moa.buffer [] {note = 11 : i64} : memref<?xf64>
// CHECK-NEXT: moa.loop
// CHECK: moa.load %{{.*}}[%{{.*}}] {note = 12 : i64} : memref<?xf64>
// CHECK-NEXT: moa.store %{{.*}}, %{{.*}}[%{{.*}}] {note = 13 : i64} : memref<?xf64>
// CHECK: } {note = 14 : i64}
func.func @attributes(%a: tensor<3xf64>, %r: memref<3xf64>) {
  %b = moa.map exp %a {note = 1} : tensor<3xf64> -> tensor<3xf64>
  %n = moa.extent %a, 0 {note = 2} : tensor<3xf64>
  %3 = moa.fixed_extent 3 {note = 3}
  moa.require %n eq %3, "equal" {note = 4}
  %k = moa.in_bounds %n in %3, "out" {note = 5}
  %c = moa.comprehension [%i < %n] -> tensor<3xf64> {
    %x = moa.at %a[%i] {note = 6} : tensor<3xf64>
    %s = moa.fold add [%j = %n to %n] -> f64 {
      moa.yield %x : f64 {note = 7}
    } {note = 8}
    moa.yield %s : f64
  } {note = 9}
  %f = moa.rav row %r {note = 10} : memref<3xf64> -> memref<?xf64>
  %t = moa.buffer [] {note = 11} : memref<?xf64>
  moa.loop [%i = %n to %n by 1] {
    %x = moa.load %f[%i] {note = 12} : memref<?xf64>
    moa.store %x, %t[%i] {note = 13} : memref<?xf64>
    moa.yield
  } {note = 14}
  func.return
}

// A loop that carries a scalar.

// CHECK-LABEL: func.func @carrying
// CHECK-SAME: (%[[N:.*]]: index, %[[Z:.*]]: f64)
// CHECK-NEXT: %{{.*}} = moa.loop [%[[I:.*]] = %[[N]] to %[[N]] by -1] with (%[[S:.*]] = %[[Z]] : f64, %{{.*}} = %[[N]] : index) {
// CHECK-NEXT: moa.yield %[[S]], %[[I]] : f64, index
// CHECK-NEXT: }
func.func @carrying(%n: index, %z: f64) -> f64 {
  %r, %last = moa.loop [%i = %n to %n by -1] with (%s = %z : f64, %j = %n : index) {
    moa.yield %s, %i : f64, index
  }
  func.return %r : f64
}

// CHECK-LABEL: func.func @cascade
// CHECK-SAME: (%[[N:.*]]: index, %[[A:.*]]: tensor<?xf64>, %[[LOWEST:.*]]: f64)
// CHECK-NEXT: %[[M:.*]], %[[S:.*]], %[[U:.*]], %[[R:.*]] = moa.cascade [%[[N]] to %[[N]]] chunk 96 -> f64, f64, tensor<?xf64>, f64 data {
// CHECK-NEXT: ^{{.*}}(%[[P:.*]]: index):
// CHECK-NEXT: %[[X:.*]] = moa.at %[[A]][%[[P]]] : tensor<?xf64>
// CHECK-NEXT: moa.yield %[[X]] : f64
// CHECK-NEXT: } group max part {
// CHECK-NEXT: ^{{.*}}(%{{.*}}: index, %[[X1:.*]]: f64):
// CHECK-NEXT: moa.yield %[[X1]] : f64
// CHECK-NEXT: } group add, add pivot %[[LOWEST]] {
// CHECK-NEXT: ^{{.*}}(%{{.*}}: index, %[[M1:.*]]: f64, %{{.*}}: f64, %{{.*}}: f64, %{{.*}}: tensor<?xf64>):
// CHECK-NEXT: moa.yield %[[M1]] : f64
// CHECK-NEXT: } part {
// CHECK-NEXT: ^{{.*}}(%{{.*}}: index, %[[X2:.*]]: f64, %{{.*}}: f64):
// CHECK-NEXT: moa.yield %[[X2]], %[[A]] : f64, tensor<?xf64>
// CHECK-NEXT: } move {
// CHECK-NEXT: ^{{.*}}(%{{.*}}: index, %{{.*}}: f64, %{{.*}}: f64, %[[S1:.*]]: f64, %[[U1:.*]]: tensor<?xf64>):
// CHECK-NEXT: moa.yield %[[S1]], %[[U1]] : f64, tensor<?xf64>
// CHECK-NEXT: } {note = 1 : i64}
func.func @cascade(%n: index, %a: tensor<?xf64>, %lowest: f64) -> f64 {
  %m, %s, %u, %r = moa.cascade [%n to %n] chunk 96
    -> f64, f64, tensor<?xf64>, f64
  data {
  ^bb0(%p: index):
    %x = moa.at %a[%p] : tensor<?xf64>
    moa.yield %x : f64
  } group max part {
  ^bb0(%p: index, %x: f64):
    moa.yield %x : f64
  } group add, add pivot %lowest {
  ^bb0(%count: index, %m: f64, %r: f64, %s: f64, %u: tensor<?xf64>):
    moa.yield %m : f64
  } part {
  ^bb0(%p: index, %x: f64, %r: f64):
    moa.yield %x, %a : f64, tensor<?xf64>
  } move {
  ^bb0(%count: index, %old: f64, %new: f64, %s: f64, %u: tensor<?xf64>):
    moa.yield %s, %u : f64, tensor<?xf64>
  } {note = 1}
  func.return %m : f64
}
