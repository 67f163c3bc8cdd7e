"""moa for PyTorch; see docs/pytorch.md."""

from moa_dialect.frontend.torch.attention import sdpa, use_moa_attention

__all__ = ["sdpa", "use_moa_attention"]
