"""Helpers for feature maps: precision, memory layout, and shifting along an axis."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """float32 for the 16-bit formats; float32 and float64 stay as they are."""
    return torch.promote_types(dtype, torch.float32)


def autocast_disabled(device_type: str) -> AbstractContextManager[object]:
    """Turn autocast off inside the context; does nothing on the device meta, which has none."""
    # Not `is_autocast_available`: torch.compile of 2.10 and 2.11 cannot trace it.
    if device_type == "meta":
        return nullcontext()
    return torch.autocast(device_type=device_type, enabled=False)


def is_channels_last(x: Tensor) -> bool:
    """Whether x, 4-D or 5-D, is stored with channels as its fastest axis."""
    layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    return x.is_contiguous(memory_format=layout)


def shift_axis1(v: Tensor, steps: int) -> Tensor:
    """Return w with w[:, i] = v[:, i + steps], and zeros where i + steps is outside axis 1.

    One padding with a negative end does the shift and the zeros, and its gradient is the opposite
    padding. Slices would each cost a zero-filled map in the backward pass.
    """
    if steps == 0:
        return v
    return F.pad(v, (0, 0) * (v.ndim - 2) + (-steps, steps))
