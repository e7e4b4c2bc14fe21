"""Videos as a network sees them: frames of their snippets, and kernels of its DSA blocks."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dsanet.dsa import DSA
from dsanet.engine.evaluation.scoring import group_views
from dsanet.engine.evaluation.trained_network import TrainedNetwork
from pipelines import EvalLoader, LoaderConfig
from shards import Split

FRAME_HEIGHT = 112  # pixels in the page


@dataclass(frozen=True)
class KernelMap:
    """The kernel K of Eq. (2) that a DSA block has made for one video.

    Attributes:
        block: the module's name.
        weights: float32 (channels, taps); the taps of a channel sum to 1.
    """

    block: str
    weights: np.ndarray


@dataclass(frozen=True)
class VideoView:
    """A video in a report.

    Attributes:
        key: in the shard set.
        frames: data URIs of JPEGs, the middle frame of each snippet.
        kernels: of each DSA block, from the input to the output; none for other networks.
    """

    key: str
    frames: tuple[str, ...]
    kernels: tuple[KernelMap, ...] = ()


def view_videos(
    trained: TrainedNetwork, split: Split, ids: list[int], *, kernels: bool = True
) -> dict[int, VideoView]:
    """Read the centre view of videos on the CPU.

    ids: in the split. Unreadable videos are left out.
    kernels: run the network, which is on the CPU, for the kernels of its DSA blocks.

    Raises:
        ShardError, LoaderError: when the tars cannot be read at all.
    """
    segments = getattr(trained.model, "segments", None)
    loader = EvalLoader(
        split.part(np.array(ids, np.int64)),
        trained.sampling,
        LoaderConfig(stage="off"),
        batch_size=1,
        clips=segments or trained.sampling.segments,
        crops=1,
        crop_size=trained.size,
        resize_short=trained.size,
    )
    views = {}
    try:
        for batch in loader:
            if batch.valid[0]:
                video = ids[int(batch.ids[0])]
                frames = tuple(_frame_uri(clip[len(clip) // 2]) for clip in batch.clips[0, 0])
                maps: tuple[KernelMap, ...] = ()
                if kernels:
                    maps = _kernels(trained.model, group_views(batch.clips, segments)[0])
                views[video] = VideoView(split.key(video), frames, maps)
    finally:
        loader.close()
    return views


def _kernels(model: nn.Module, clips: Tensor) -> tuple[KernelMap, ...]:
    """Kernels for one input, uint8 (1, U, T, H, W, 3)."""
    with _recorded_kernels(model) as kernels, torch.inference_mode():
        if any(isinstance(module, DSA) for module in model.modules()):
            model(clips)
    return tuple(KernelMap(name, weights) for name, weights in kernels.items())


@contextmanager
def _recorded_kernels(model: nn.Module) -> Iterator[dict[str, np.ndarray]]:
    """Record the output of every DSA block's kernel generator, by the block's name."""
    kernels: dict[str, np.ndarray] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, DSA):

            def record(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
                kernels[name] = output.float().numpy()

            handles.append(module.generate.register_forward_hook(record))
    try:
        yield kernels
    finally:
        for handle in handles:
            handle.remove()


def _frame_uri(frame: Tensor) -> str:
    """A frame, uint8 (H, W, 3), as the data URI of a small JPEG."""
    from PIL import Image

    image = Image.fromarray(frame.numpy())
    width = max(1, round(image.width * FRAME_HEIGHT / image.height))
    file = io.BytesIO()
    image.resize((width, FRAME_HEIGHT), Image.Resampling.BICUBIC).save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def kernel_uri(kernel: KernelMap) -> str:
    """A kernel as the data URI of a PNG: a row for each tap, a column for each channel.

    Blue is a weight of 0, white the mean 1 / taps, red twice that or more. Channels are sorted by
    the weight of the middle tap.
    """
    from PIL import Image

    weights = kernel.weights[np.argsort(-kernel.weights[:, kernel.weights.shape[1] // 2])]
    level = np.clip(weights.T * kernel.weights.shape[1] - 1, -1, 1)[..., None]  # -1 ... 1
    red, blue = np.array([178, 24, 43]), np.array([33, 102, 172])
    colour = np.where(level > 0, red, blue)
    pixels = np.round(255 + np.abs(level) * (colour - 255)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
