// RUN: moa-opt %s -p moa-to-dnf,moa-share,moa-sink,moa-to-onf,moa-split-loops | filecheck %s
// RUN: moa-opt %s -p 'moa-to-dnf,moa-share,moa-sink,moa-to-onf,moa-split-loops{pieces=1}' | filecheck %s --check-prefix WHOLE

// A choice by a loop's index becomes two loops.

// CHECK-LABEL: func.func @cat(
// CHECK-NOT:     scf.if
// CHECK:         moa.loop [%{{.*}} = %[[ZERO:.*]] to %[[MIDDLE:.*]] by 1]
// CHECK:         moa.loop [%{{.*}} = %[[MIDDLE]] to %{{.*}} by 1]
// CHECK-NOT:     moa.loop
// CHECK:         func.return

// WHOLE-LABEL: func.func @cat(
// WHOLE:         moa.loop
// WHOLE:           scf.if
// WHOLE-NOT:     moa.loop
// WHOLE:         func.return
func.func @cat(%a: tensor<?xf64>, %b: tensor<?xf64>) -> tensor<?xf64> {
  %c = moa.cat %a, %b : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
  func.return %c : tensor<?xf64>
}

// Two choices at one bound: two loops.

// CHECK-LABEL: func.func @two_alike(
// CHECK-COUNT-2: moa.loop
// CHECK-NOT:     moa.loop
// CHECK-NOT:     scf.if
// CHECK:         func.return
func.func @two_alike(%a: tensor<?xf64>, %b: tensor<?xf64>) -> tensor<?xf64> {
  %c = moa.cat %a, %b : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
  %d = moa.cat %a, %b : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
  %e = moa.map exp %d : tensor<?xf64> -> tensor<?xf64>
  %f = moa.pointwise add %c, %e : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
  func.return %f : tensor<?xf64>
}

// The neighbours of each element around the end: the first, the last, those between, and
// the first that is also the last. What the bounds of a loop answer is not asked, nor is
// a loop split for it, even if it must stay whole.

// CHECK-LABEL: func.func @neighbours(
// CHECK-COUNT-4: moa.loop
// CHECK-NOT:     moa.loop
// CHECK-NOT:     scf.if
// CHECK:         func.return

// WHOLE-LABEL: func.func @neighbours(
// WHOLE:         moa.loop
// WHOLE-COUNT-2:   scf.if
// WHOLE-NOT:       scf.if
// WHOLE-NOT:     moa.loop
// WHOLE:         func.return
func.func @neighbours(%a: tensor<?xf64>) -> tensor<?xf64> {
  %one = moa.constant dense<1> : tensor<index>
  %two = moa.constant dense<2> : tensor<index>
  %last = moa.constant dense<-2> : tensor<index>
  %p = moa.pad %one, %one, %a : tensor<index>, tensor<index>, tensor<?xf64> -> tensor<?xf64>
  %l = moa.drop %last, %p : tensor<index>, tensor<?xf64> -> tensor<?xf64>
  %r = moa.drop %two, %p : tensor<index>, tensor<?xf64> -> tensor<?xf64>
  %s = moa.pointwise add %l, %r : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
  func.return %s : tensor<?xf64>
}

// Folds, too: the last part first, the others go on from it.

// CHECK-LABEL: func.func @fold(
// CHECK-COUNT-3: moa.fold add
// CHECK-NOT:     moa.fold
// CHECK-NOT:     scf.if
// CHECK:         func.return
func.func @fold(%a: tensor<?xf64>) -> tensor<f64> {
  %one = moa.constant dense<1> : tensor<index>
  %p = moa.pad %one, %one, %a : tensor<index>, tensor<index>, tensor<?xf64> -> tensor<?xf64>
  %s = moa.reduce add %p : tensor<?xf64> -> tensor<f64>
  func.return %s : tensor<f64>
}
