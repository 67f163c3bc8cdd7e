// RUN: moa-opt %s -p 'moa-lift{machine=avx512}' | filecheck %s
// RUN: not moa-opt %s -p 'moa-lift{machine=avx512 schedule="j=procs,regs:1,lanes:16"}' 2>&1 | filecheck %s --check-prefix=LOADS
// RUN: not moa-opt %s -p 'moa-lift{machine=avx512 schedule="i=procs,regs:1,lanes:16"}' 2>&1 | filecheck %s --check-prefix=STORES
// RUN: moa-opt %s -p 'moa-lift{machine=avx512 schedule="j=procs,regs:1,lanes:16" strided=true}' | filecheck %s --check-prefix=ALLOWED
// RUN: moa-opt %s -p 'moa-lift{machine=avx512 schedule="i=procs,block:16;j=procs,regs:1,lanes:16"}' | filecheck %s --check-prefix=TURNED

// Where axes change places, lanes that lie next to each other on one side do not on the
// other: squares are turned in registers. A schedule without a turn is refused.
// CHECK:   moa.schedule = "i=procs,block:16;j=procs,regs:1,lanes:16
// LOADS:   @swap: schedule: the lanes of %a[%j, %i] along j lie 80 apart, not 1, and no axis of a tile turns them: 16 loads of one element instead of one load, {{.*}} us in all, where i=procs,block:16;j=procs,regs:1,lanes:16;p=chunk:1,regs:12 takes
// STORES:  @swap: schedule: the lanes of result 0 along i lie a row apart, not 1, and no axis of a tile turns them: 16 stores of one element instead of one store, {{.*}} us in all, where
// ALLOWED: moa.schedule = "j=procs,regs:1,lanes:16
// TURNED:  moa.schedule = "i=procs,block:16;j=procs,regs:1,lanes:16
func.func @swap(%a: tensor<64x80xf32>) -> tensor<80x64xf32> {
  %n = moa.extent %a, 1 : tensor<64x80xf32>
  %m = moa.extent %a, 0 : tensor<64x80xf32>
  %s = moa.comprehension [%i < %n, %j < %m] -> tensor<80x64xf32> {
    %x = moa.at %a[%j, %i] : tensor<64x80xf32>
    moa.yield %x : f32
  }
  func.return %s : tensor<80x64xf32>
}
