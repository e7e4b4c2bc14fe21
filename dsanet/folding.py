"""Small helpers over folded maps: precision, layout, and moving along one axis."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F


def accurate(dtype: torch.dtype) -> torch.dtype:
    """float32 for the half formats, and the dtype itself for float32 and float64."""
    return torch.promote_types(dtype, torch.float32)


def full_precision(device_type: str) -> AbstractContextManager[object]:
    """No autocast inside; on a device that has none (meta, where networks are counted), nothing."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type=device_type, enabled=False)
    return nullcontext()


def is_channels_last(x: Tensor) -> bool:
    """Whether x, 4-D or 5-D, lies in memory with its channels fastest."""
    layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    return x.is_contiguous(memory_format=layout)


def later(v: Tensor, steps: int) -> Tensor:
    """v[:, i + steps] at place i of axis 1, zeros beyond the ends; negative steps look back.

    One padding with a negative end does both the move and the zeros, and its gradient is the same
    operation the other way: slices would each cost a zero-filled map in the backward pass.
    """
    if steps == 0:
        return v
    return F.pad(v, (0, 0) * (v.ndim - 2) + (-steps, steps))
