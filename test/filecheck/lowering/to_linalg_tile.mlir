// REQUIRES: mlir-opt
// RUN: moa-opt %s -p moa-to-linalg --print-op-generic | %mlir_opt --transform-preload-library='transform-library-paths=%S/Inputs/tile.transform' --transform-interpreter --canonicalize | filecheck %s --check-prefix TILE
// RUN: moa-opt %s -p moa-to-linalg --print-op-generic | %mlir_opt --linalg-specialize-generic-ops | filecheck %s --check-prefix NAMED
// RUN: moa-opt %s -p moa-to-linalg --print-op-generic | %mlir_opt --transform-preload-library='transform-library-paths=%S/Inputs/tile.transform' --transform-interpreter --canonicalize --one-shot-bufferize=bufferize-function-boundaries --convert-linalg-to-loops | filecheck %s --check-prefix LOOPS

// Upstream tiles the product that a program's algebra becomes, and knows its name.

func.func @product(%a: tensor<?x64xf32>, %b: tensor<64x?xf32>) -> tensor<?x?xf32> {
  %c = moa.inner add mul %a, %b : tensor<?x64xf32>, tensor<64x?xf32> -> tensor<?x?xf32>
  func.return %c : tensor<?x?xf32>
}

// TILE-LABEL: func.func @product(
// TILE:         scf.for
// TILE:           scf.for
// TILE:             scf.for
// TILE:               tensor.extract_slice %{{.*}} : tensor<?x64xf32> to tensor<?x4xf32>
// TILE:               tensor.extract_slice %{{.*}} : tensor<64x?xf32> to tensor<4x?xf32>
// TILE:               linalg.generic
// TILE-SAME:            iterator_types = ["parallel", "parallel", "reduction"]

// NAMED-LABEL: func.func @product(
// NAMED:         linalg.matmul ins(%{{.*}}, %{{.*}} : tensor<?x64xf32>, tensor<64x?xf32>)

// LOOPS-LABEL: func.func @product(
// LOOPS-NOT:     linalg.
// LOOPS-NOT:     tensor.
// LOOPS-COUNT-6: scf.for
// LOOPS:         memref.load
