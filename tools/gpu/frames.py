"""JPEGs and small videos of known content, and the project's decoder on them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipelines.config import LoaderConfig
from pipelines.decode.backend import graph_spec
from pipelines.decode.decoder import Decoder, EncodedBatch


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """uint8 (height, width, 3): smooth colours with a fine texture, as in a photograph."""
    generator = np.random.default_rng([height, width, seed])
    y, x = np.mgrid[:height, :width] / 16
    waves = [np.sin(y * a + x * b + c) for a, b, c in generator.uniform(0.2, 1.2, (3, 3))]
    texture = generator.normal(0, 6, (height, width, 1))
    return np.clip(128 + 70 * np.stack(waves, -1) + texture, 0, 255).astype(np.uint8)


def jpegs(sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """A baseline 4:2:0 JPEG, as its bytes, of each (height, width)."""
    found = []
    for number, (height, width) in enumerate(sizes):
        file = io.BytesIO()
        image = Image.fromarray(picture(height, width, number))
        image.save(file, "JPEG", quality=90, subsampling="4:2:0")
        found.append(np.frombuffer(file.getvalue(), np.uint8).copy())
    return found


def decode_with_pil(encoded: np.ndarray) -> np.ndarray:
    """uint8 (height, width, 3) by libjpeg, which interpolates chroma."""
    return np.asarray(Image.open(io.BytesIO(encoded.tobytes())))


def decode_jpegs(
    images: Sequence[np.ndarray],
    boxes: np.ndarray,
    size: int,
    device: torch.device,
    *,
    flips: np.ndarray | None = None,
    graph: dict[str, Any] | None = None,
    **settings: Any,
) -> torch.Tensor:
    """Decode N JPEGs, as videos of one frame, by the loader's decoder.

    Returns clips uint8 (N, C, 1, size, size, 3) on the CPU.

    boxes (N, C, 4) in pixels; flips bool (N,); graph: fields of `GraphSpec`; settings: of
    `LoaderConfig`.
    """
    spec = graph_spec(
        "image", str(device), LoaderConfig(**settings), videos=len(images), frames=1, size=size,
        crops=boxes.shape[1], flip=flips is not None,
    )  # fmt: skip
    decoder = Decoder(replace(spec, **(graph or {})), 1)
    flips = np.zeros(len(images), bool) if flips is None else flips
    colours = np.ones((len(images), 4), np.float32)  # not used: the graph changes no colours
    decoder.submit(EncodedBatch([[image] for image in images], boxes, flips, colours))
    try:
        return decoder.tensor(decoder.collect()).cpu().clone()  # waits for the GPU
    finally:
        decoder.close()
