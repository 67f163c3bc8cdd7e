// RUN: moa-opt %s -p moa-to-dnf | filecheck %s
// RUN: moa-opt %s -t moa | filecheck %s --check-prefix NOTATION
// RUN: moa-opt %s --print-op-generic | moa-opt -t moa | filecheck %s --check-prefix NOTATION
// RUN: moa-opt %s -p moa-to-dnf -t moa | filecheck %s --check-prefix DNF

// Extents of one name are required to be equal at the entry, before all else.

// CHECK-LABEL: func.func @equal_by_name(
// CHECK-SAME:    %[[A:.*]]: tensor<?x?xf64>, %[[B:.*]]: tensor<?x?xf64>)
// NOTATION-LABEL: equal_by_name(a ^ <n m>, b ^ <m d>) → c ^ <n d>:
// DNF-LABEL:      equal_by_name(a ^ <n m>, b ^ <m d>) → O ^ <n d>:
func.func @equal_by_name(%a: tensor<?x?xf64> {moa.extents = ["n", "m"]}, %b: tensor<?x?xf64> {moa.extents = ["m", "d"]}) -> tensor<?x?xf64> {
  %c = moa.inner add mul %a, %b : tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
  func.return %c : tensor<?x?xf64>
}
// CHECK:       %[[GIVEN:.*]] = moa.extent %[[B]], 0
// CHECK:       %[[EXPECTED:.*]] = moa.extent %[[A]], 1
// CHECK:       moa.require %[[GIVEN]] eq %[[EXPECTED]], "extent m: axis 0 of b must equal axis 1 of a"
// CHECK-NOT:   moa.require
// CHECK:       moa.fold add [%{{.*}} = %{{.*}} to %[[EXPECTED]]]

// Extents of other names need a requirement, which says the names.
// CHECK-LABEL: func.func @equal_by_requirement(
// NOTATION-LABEL: equal_by_requirement(a ^ <n m>, b ^ <m 4>) → c ^ <n 4>:
func.func @equal_by_requirement(%a: tensor<?x?xf64> {moa.extents = ["n", "m"]}, %b: tensor<?x4xf64> {moa.extents = ["k", "4"]}) -> tensor<?x4xf64> {
  %c = moa.inner add mul %a, %b : tensor<?x?xf64>, tensor<?x4xf64> -> tensor<?x4xf64>
  func.return %c : tensor<?x4xf64>
}
// CHECK:       moa.require %{{.*}} eq %{{.*}}, "inner: the last extent of the left operand must equal the first of the right: expected {expected} (m, axis 1 of a), got {given} (k, axis 0 of b)"
// CHECK-NOT:   moa.require

// Sums of extents of equal names are equal; other attributes stay.
// CHECK-LABEL: func.func @computed_extents(
// CHECK-SAME:    %{{.*}}: tensor<?xf64> {test.mark}, %{{.*}}: tensor<?xf64>, %{{.*}}: tensor<?xf64>, %{{.*}}: tensor<?xf64>)
// NOTATION-LABEL: computed_extents(a ^ <n>, b ^ <m>, c ^ <n>, d ^ <m>) → e ^ <(n + m)>:
// DNF-LABEL:      computed_extents(a ^ <n>, b ^ <m>, c ^ <n>, d ^ <m>) → O ^ <(n + m)>:
func.func @computed_extents(%a: tensor<?xf64> {moa.extents = ["n"], test.mark}, %b: tensor<?xf64> {moa.extents = ["m"]}, %c: tensor<?xf64> {moa.extents = ["n"]}, %d: tensor<?xf64> {moa.extents = ["m"]}) -> tensor<?xf64> {
  %ab = moa.cat %a, %b : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
  %cd = moa.cat %c, %d : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
  %e = moa.pointwise add %ab, %cd : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
  func.return %e : tensor<?xf64>
}
// CHECK:       moa.require %{{.*}} eq %{{.*}}, "extent n: axis 0 of c must equal axis 0 of a"
// CHECK:       moa.require %{{.*}} eq %{{.*}}, "extent m: axis 0 of d must equal axis 0 of b"
// CHECK-NOT:   moa.require
// CHECK:       moa.comprehension
