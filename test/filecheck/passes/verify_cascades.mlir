// RUN: moa-opt %s -p moa-verify | filecheck %s
// RUN: moa-opt %s -p 'moa-fuse-reductions{certify=true},moa-verify' | filecheck %s
// RUN: moa-opt %s -p 'moa-fuse-reductions{certify=true}' | moa-opt -p moa-verify --print-op-generic | moa-opt | filecheck %s --check-prefix CERTIFIED

// Cascades carry what they need for a proof that their accumulators may move: the text
// of the part and move of each. Without a derivation, that is what moa-verify checks.

// CHECK-LABEL: func.func @logsumexp(
// CERTIFIED-LABEL: func.func @logsumexp(
// CERTIFIED: moa.certificate = {pivots = [{pivot = "r0", value = "Max(-1.7976931348623157e+308, a0)", aim = "nothing to prove", identities = []}],
// CERTIFIED-SAME: edges = [{accumulator = "a0", function = "max", rule = "none", part = "x0", T = "a0", C1 = "nothing to prove", C2 = "nothing to prove", identities = []},
// CERTIFIED-SAME: {accumulator = "a1", function = "add", rule = "rank one", part = "exp(-r0 + x0)", T = "a1*exp(r0 - r0')", C1 = "proved by sympy", C2 = "proved by sympy",
// CERTIFIED-SAME: identities = ["exp(-r0 + x0)*exp(r0 - r0') = exp(-r0' + x0)", "(a1 + b1)*exp(r0 - r0') = a1*exp(r0 - r0') + b1*exp(r0 - r0')"]}]}
func.func @logsumexp(%a: tensor<?xf64>) -> tensor<f64> {
  %0 = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<?xf64>
  %lowest = arith.constant -1.7976931348623157e+308 : f64
  %result = moa.comprehension [] -> tensor<f64> {
    %m, %s, %r = moa.cascade [%0 to %n] chunk 64 -> f64, f64, f64 data {
    ^bb0(%p: index):
      %x = moa.at %a[%p] : tensor<?xf64>
      moa.yield %x : f64
    } group max part {
    ^bb0(%p: index, %x: f64):
      moa.yield %x : f64
    } group add pivot %lowest {
    ^bb0(%count: index, %top: f64, %r0: f64, %sum: f64):
      %kept = arith.maximumf %top, %lowest : f64
      moa.yield %kept : f64
    } part {
    ^bb0(%p: index, %x: f64, %r0: f64):
      %distance = arith.subf %x, %r0 : f64
      %weight = math.exp %distance : f64
      moa.yield %weight : f64
    } move {
    ^bb0(%count: index, %old: f64, %new: f64, %sum: f64):
      %shift = arith.subf %old, %new : f64
      %factor = math.exp %shift : f64
      %moved = arith.mulf %factor, %sum : f64
      moa.yield %moved : f64
    }
    %log = math.log %s : f64
    %y = arith.addf %m, %log : f64
    moa.yield %y : f64
  }
  func.return %result : tensor<f64>
}

// CHECK-LABEL: func.func @moments(
// CERTIFIED-LABEL: func.func @moments(
// CERTIFIED: value = "a1/n + r0", aim = "proved by sympy", identities = ["r0' + (a1 + n*(r0 - r0'))/n = a1/n + r0"]
// CERTIFIED-SAME: rule = "finite rank", part = "(-r0 + x0)**2", T = "a0 + a1*(2*r0 - 2*r0') + n*(r0 - r0')**2"
func.func @moments(%a: tensor<?xf64>) -> tensor<f64> {
  %0 = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<?xf64>
  %zero = arith.constant 0.0 : f64
  %two = arith.constant 2.0 : f64
  %result = moa.comprehension [] -> tensor<f64> {
    %q, %d, %r = moa.cascade [%0 to %n] -> f64, f64, f64 data {
    ^bb0(%p: index):
      %x = moa.at %a[%p] : tensor<?xf64>
      moa.yield %x : f64
    } group add, add pivot %zero {
    ^bb0(%count: index, %r0: f64, %squares: f64, %distances: f64):
      %integer = arith.index_cast %count : index to i64
      %number = arith.sitofp %integer : i64 to f64
      %step = arith.divf %distances, %number : f64
      %mean = arith.addf %r0, %step : f64
      moa.yield %mean : f64
    } part {
    ^bb0(%p: index, %x: f64, %r0: f64):
      %distance = arith.subf %x, %r0 : f64
      %square = arith.mulf %distance, %distance : f64
      moa.yield %square, %distance : f64, f64
    } move {
    ^bb0(%count: index, %old: f64, %new: f64, %squares: f64, %distances: f64):
      %integer = arith.index_cast %count : index to i64
      %number = arith.sitofp %integer : i64 to f64
      %shift = arith.subf %old, %new : f64
      %shifts = arith.mulf %shift, %shift : f64
      %all = arith.mulf %shifts, %number : f64
      %first = arith.addf %squares, %all : f64
      %twice = arith.mulf %two, %shift : f64
      %cross = arith.mulf %twice, %distances : f64
      %second = arith.addf %first, %cross : f64
      %further = arith.mulf %shift, %number : f64
      %moved = arith.addf %further, %distances : f64
      moa.yield %second, %moved : f64, f64
    }
    moa.yield %q : f64
  }
  func.return %result : tensor<f64>
}

// What is wrong is said with numbers.

// RUN: sed 's/subf %%old, %%new/subf %%new, %%old/' %s | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix SIGN
// SIGN: moa-opt: @logsumexp: cascade 0: C1 of accumulator a1 does not hold: at r0 = {{.*}}, r0' = {{.*}}, x0 = {{.*}}: expected exp(-r0' + x0) = [[E:.*]], got exp(-r0 + r0')*exp(-r0 + x0) = {{.*}}

// RUN: sed 's/group add pivot/group mul pivot/' %s | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix FUNCTION
// FUNCTION: moa-opt: @logsumexp: cascade 0: C2 of accumulator a1 does not hold: at a1 = {{.*}}, b1 = {{.*}}, r0 = {{.*}}, r0' = {{.*}}: expected a1*b1*exp(2*r0 - 2*r0') = {{.*}}, got a1*b1*exp(r0 - r0') = {{.*}}

// A certificate says what is found, not something else.

// RUN: moa-opt %s -p 'moa-fuse-reductions{certify=true}' -o %t.mlir
// RUN: sed "s/T = \"a1.exp(r0 - r0')\"/T = \"a1\"/" %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix TEXT
// TEXT: moa-opt: @logsumexp: cascade 0: T of entry 1 of edges of the certificate: expected "a1*exp(r0 - r0')", got "a1"
