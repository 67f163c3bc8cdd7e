"""moa for PyTorch: a backend of `torch.compile`, and `sdpa`; see docs/pytorch.md."""

from moa_dialect.frontend.torch.attention import sdpa, use_moa_attention
from moa_dialect.frontend.torch.dynamo import (
    GraphReport,
    RegionReport,
    backend,
    graph_breaks,
    report,
)

__all__ = [
    "GraphReport",
    "RegionReport",
    "backend",
    "graph_breaks",
    "report",
    "sdpa",
    "use_moa_attention",
]
