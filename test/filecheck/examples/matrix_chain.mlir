// RUN: moa-opt %s -p moa-infer-shapes,moa-to-dnf,moa-check-dnf | filecheck %s --check-prefix=DNF
// RUN: moa-opt %s -p moa-infer-shapes,moa-to-dnf,moa-check-dnf,moa-share,moa-sink,moa-to-onf,moa-check-storage,moa-to-scf | filecheck %s --check-prefix=TARGET

// (A +•× B) +•× C, without the product of A and B: its normal form, taken literally, has
// four loops nested; the kernel has two nests of three.

func.func @matrix_chain(%a: tensor<30x40xf64>, %b: tensor<40x50xf64>, %c: tensor<50x60xf64>) -> tensor<30x60xf64> {
  %ab = moa.inner add mul %a, %b : tensor<30x40xf64>, tensor<40x50xf64> -> tensor<30x50xf64>
  %abc = moa.inner add mul %ab, %c : tensor<30x50xf64>, tensor<50x60xf64> -> tensor<30x60xf64>
  func.return %abc : tensor<30x60xf64>
}

// DNF-LABEL:    func.func @matrix_chain(
// DNF:            moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] -> tensor<30x60xf64>
// DNF-NEXT:         moa.fold add
// DNF-NEXT:           moa.fold add

// TARGET-LABEL: func.func @matrix_chain(
// TARGET-NOT:     memref.alloc
// TARGET:         scf.for
// TARGET:           scf.for
// TARGET:             memref.store
// TARGET-NEXT:      }
// TARGET:           scf.for
// TARGET:             scf.for
// TARGET:               arith.mulf
// TARGET-NEXT:          arith.addf
// TARGET-NEXT:          scf.yield
// TARGET-NEXT:        }
// TARGET:             scf.for
// TARGET:               arith.mulf
// TARGET:               arith.addf
// TARGET:               memref.store
// TARGET-NEXT:        }
// TARGET-NEXT:      }
// TARGET-NEXT:    }
// TARGET-NEXT:    func.return
// TARGET-NOT:   moa.
