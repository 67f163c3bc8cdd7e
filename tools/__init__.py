"""Command-line tools: `moa-opt`, `moa-run`, `moa-cost`, `moa-bench`, the demo."""
