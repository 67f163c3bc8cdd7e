// RUN: not moa-opt %s -p 'mlir-pipeline{pipeline="no-such-pass"}' 2>&1 | filecheck %s --check-prefix=UNKNOWN
// RUN: not moa-opt %s -p 'mlir-pipeline{pipeline="canonicalize("}' 2>&1 | filecheck %s --check-prefix=UNBALANCED
// RUN: not moa-opt %s -p mlir-pipeline 2>&1 | filecheck %s --check-prefix=MISSING
// RUN: not moa-opt %s -p 'mlir-pipeline{pipeline="func.func(affine-loop-tile{cache-size=none})"}' 2>&1 | filecheck %s --check-prefix=OPTION

// A pipeline that upstream does not accept is an error with upstream's reason.

// UNKNOWN: upstream pipeline: {{.*}}'no-such-pass' does not refer to a registered pass or pass pipeline
// UNBALANCED: upstream pipeline: {{.*}}encountered unbalanced parentheses while parsing pipeline
// MISSING: mlir-pipeline requires argument "pipeline"
// OPTION: upstream pipeline:

func.func @any() {
  func.return
}
