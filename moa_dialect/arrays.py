"""Arrays of other libraries as NumPy's."""

from __future__ import annotations

import sys
from typing import Any, cast

import numpy as np

from moa_dialect.errors import DTypeError, LayoutError


def is_torch(value: Any) -> bool:
    """Whether something is a tensor of PyTorch, if that is imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_on_cuda(value: Any) -> bool:
    """Whether something is a tensor of PyTorch on a CUDA device."""
    return is_torch(value) and value.is_cuda


def to_numpy(number: int, value: Any) -> np.ndarray:
    """An argument as a NumPy array that shares its memory.

    Takes NumPy arrays and numbers, torch tensors on the CPU, and whatever else speaks
    DLPack.

    Raises:
        LayoutError: for a tensor on another device, a sparse one, or one that requires
            grad (kernels are not differentiated).
        DTypeError: for anything that is no array.
    """
    # The module is imported by whoever makes a masked array, and takes a while.
    if "numpy.ma" in sys.modules and isinstance(value, np.ma.MaskedArray):
        raise DTypeError(f"argument {number}: expected an array, got a masked array")
    if isinstance(value, np.ndarray):
        # What a subclass changes, as what is a row of a matrix, is not meant.
        return np.asarray(cast(np.ndarray, value))
    if isinstance(value, bool | int | float | np.generic):
        return np.asarray(value)
    if is_torch(value):
        return _from_torch(number, value)
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise LayoutError(f"argument {number}: {error}") from None
    raise DTypeError(
        f"argument {number}: expected an array (NumPy, torch, DLPack), "
        f"got {type(value).__name__}"
    )


def _from_torch(number: int, tensor: Any) -> np.ndarray:
    torch = sys.modules["torch"]
    if tensor.device.type != "cpu":
        raise LayoutError(
            f"argument {number}: expected a tensor on device cpu, got {tensor.device}"
        )
    if tensor.layout != torch.strided:
        raise LayoutError(
            f"argument {number}: expected a strided tensor, got {tensor.layout}"
        )
    if tensor.requires_grad and torch.is_grad_enabled():
        raise LayoutError(
            f"argument {number}: expected a tensor that does not require grad (moa "
            f"kernels are not differentiated; pass tensor.detach()), got one that does"
        )
    tensor = tensor.detach().resolve_neg()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    try:
        return tensor.numpy()
    except (TypeError, RuntimeError) as error:
        raise DTypeError(f"argument {number}: unsupported tensor: {error}") from None
