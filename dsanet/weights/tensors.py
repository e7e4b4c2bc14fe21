"""What a tensor from a file must be like to become a weight of a network."""

from __future__ import annotations

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def check_tensor(tensor: Tensor, target: Tensor) -> str:
    """Why a tensor cannot be a weight, in words, or ""; its shape and its numbers are not checked.

    target: the tensor of the network whose place it takes.
    """
    if problem := why_not_plain(tensor):
        return problem
    if target.is_floating_point() and tensor.dtype not in FLOATS:
        return f"has numbers of type {_name(tensor.dtype)}, not float32"
    return ""


def why_not_plain(tensor: Tensor) -> str:
    """Why a tensor is not an array of real numbers in memory, in words, or ""."""
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer):
        return f"is a {type(tensor).__name__}, not a plain tensor"
    if tensor.is_nested or tensor.layout is not torch.strided:
        return f"is sparse or nested ({tensor.layout}), not a dense tensor"
    if tensor.is_meta:
        return "has no content (it is on the meta device)"
    if tensor.is_quantized:
        return f"is quantized ({_name(tensor.dtype)})"
    is_integer = not tensor.is_floating_point() and not tensor.is_complex()
    if tensor.dtype not in FLOATS and (not is_integer or tensor.dtype is torch.bool):
        return f"has numbers of type {_name(tensor.dtype)}, not float32"
    return ""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
