"""Raising of linalg on tensors: one module for each kind of operation.

- `source`: a module read through upstream MLIR, with what its interfaces know of it.
- `rule`: what a rule is, and what it may ask: extents, comprehensions, requirements.
- `scalars`: scalar bodies, operation by operation.
- `structured`, `parts`: linalg operations with a body: elementwise ones, reductions.
- `places`: reductions to the place of an extreme.
- `shapes`: operations on tensors that move elements.
- `driver`: the rules applied to the functions of a module.

Front ends may add rules: see `FURTHER`.
"""

FURTHER: list[str] = []
"""Modules whose `RULES` are applied too, imported when a module is raised."""
