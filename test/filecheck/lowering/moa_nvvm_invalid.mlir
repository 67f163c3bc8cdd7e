// RUN: not moa-opt %s -p 'moa-nvvm{chip=sm_1}' 2>&1 | filecheck %s
// RUN: not moa-opt %s -p 'moa-outline-kernels{block=0}' 2>&1 | filecheck %s --check-prefix=BLOCK

func.func @f(%a: tensor<4xf32>) -> tensor<4xf32> {
  func.return %a : tensor<4xf32>
}
// CHECK: moa-opt: unknown chip: expected one of sm_70, {{.*}}, got 'sm_1'
// BLOCK: moa-opt: moa-outline-kernels: expected a block of 1 to 1024 threads, got 0
