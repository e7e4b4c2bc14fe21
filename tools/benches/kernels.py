"""Ways to run a 3 x 3 x 3 convolution on folded channels_last frames, and their times."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benches.report import Report
from benches.timing import alternate

# (channels, height) of I3D-R18's inflated convolutions, res4 and res5, for a crop of 224 pixels.
SHAPES = ((256, 14), (512, 7))
FRAMES = 4


def volume(x: Tensor, weight: Tensor) -> Tensor:
    """One Conv3d on the channels_last_3d view, as in dsanet.convs.VolumeConv."""
    v = x.permute(0, 2, 3, 1).unflatten(0, (-1, FRAMES)).permute(0, 4, 1, 2, 3)
    y = F.conv3d(v, weight, padding=1)
    return y.permute(0, 2, 3, 4, 1).flatten(0, 1).permute(0, 3, 1, 2)


def shifted(x: Tensor, weight: Tensor) -> Tensor:
    """Three 3 x 3 convolutions of all frames, summed one frame apart."""
    parts = (F.conv2d(x, weight[:, :, tap], padding=1) for tap in range(3))
    past, now, future = (p.permute(0, 2, 3, 1).unflatten(0, (-1, FRAMES)) for p in parts)
    pad = (0, 0, 0, 0, 0, 0)
    out = now + F.pad(past, (*pad, 1, -1)) + F.pad(future, (*pad, -1, 1))
    return out.flatten(0, 1).permute(0, 3, 1, 2)


def stacked(x: Tensor, weight: Tensor) -> Tensor:
    """One 3 x 3 convolution over three neighbouring frames stacked in the channels."""
    v = x.permute(0, 2, 3, 1).unflatten(0, (-1, FRAMES))
    pad = (0, 0, 0, 0, 0, 0)
    wide = torch.cat((F.pad(v, (*pad, 1, -1)), v, F.pad(v, (*pad, -1, 1))), dim=-1)
    flat = wide.flatten(0, 1).permute(0, 3, 1, 2)
    return F.conv2d(flat, weight.transpose(1, 2).flatten(1, 2), padding=1)


FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "conv3d view": volume,
    "3 shifted conv2d": shifted,
    "1 stacked conv2d": stacked,
}


def compare(args: argparse.Namespace, report: Report, device: torch.device) -> None:
    """Time forward and backward of each form at R18's shapes, in alternating blocks."""
    batch = (args.batch or (32 if device.type == "cuda" else 2)) * 4 * FRAMES
    for dtype in (torch.float32, torch.bfloat16):
        for channels, side in SHAPES:
            x = torch.randn(batch, channels, side, side, device=device, dtype=dtype)
            x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
            weight = torch.randn(channels, channels, 3, 3, 3, device=device, dtype=dtype) * 0.02
            weight = weight.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
            calls = {name: _step(form, x, weight) for name, form in FORMS.items()}
            times = alternate(calls, blocks=args.blocks, calls=args.calls)
            for name, timing in times.items():
                report.add(
                    what="3x3x3 kernel",
                    formulation=name,
                    precision=str(dtype).removeprefix("torch."),
                    view=f"{batch} x {channels} x {side} x {side}",
                    ms=timing.median * 1e3,
                    spread=timing.spread,
                    ratio=times["conv3d view"].median / timing.median,
                )


def _step(
    form: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor
) -> Callable[[], None]:
    def run() -> None:
        out = form(x, weight)
        torch.autograd.grad(out, (x, weight), out.detach())
        if x.is_cuda:
            torch.cuda.synchronize()

    return run
