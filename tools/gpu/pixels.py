"""Pixels of the project's decoders compared with PIL and PyAV, and the hand-over to a busy GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from gpu.clips import shards
from gpu.frames import decode_jpegs, decode_with_pil, jpegs
from gpu.job import Job
from pipelines import AugmentConfig, LoaderConfig, Rank, SamplingConfig, TrainLoader, resources
from pipelines.decode.cpu_resize import resize
from pipelines.resources import OutputsInUse
from shards import Split

# Even and odd sides, multiples of 16 and of neither, flat and tall.
SIDES = ((256, 340), (256, 336), (239, 321), (97, 131), (480, 64), (33, 257))
SIDE = 64  # of the crops after the resize
# Levels of 255 by which decoders may differ on the mean and at most, as in the tests of the
# decoders: FFmpeg interpolates chroma in another way than libjpeg.
JPEG_MEAN, VIDEO_MEAN, LARGEST = 1.0, 2.5, 90
PRODUCTS = 50  # queued before a batch is read: tens of milliseconds on an H100
POISON = 255


def run(job: Job) -> None:
    job.attempt("JPEG, nvJPEG against libjpeg", _jpegs, job)
    for codec in ("mjpeg", "h264", "hevc", "vp9"):
        job.attempt(f"{codec}, DALI against PyAV", _videos, job, codec)
    if job.needs_gpu("hand-over to a busy GPU"):
        job.attempt("hand-over to a busy GPU", _handover, job)


def _jpegs(job: Job) -> None:
    """Every way to decode, crop, flip and resize JPEGs, against libjpeg and torch's resize."""
    images = jpegs(SIDES)
    wholes = [decode_with_pil(image) for image in images]
    flips = np.arange(len(images)) % 2 == 1
    one, three = random_boxes(1), random_boxes(3)
    ways: list[tuple[str, np.ndarray, np.ndarray | None, dict[str, Any]]] = [
        ("whole frames", whole_boxes(), None, {}),
        ("crops", one, None, {}),
        ("flipped crops", one, flips, {}),
        ("3 crops", three, None, {}),
        ("3 flipped crops", three, flips, {}),
        ("crops decoded alone (roi_decode)", one, flips, {"roi_decode": True}),
        ("crops decoded on the CPU", one, flips, {"decode_on": "cpu"}),
        ("crops by DALI's resize", one, None, {"resize": "dali"}),
    ]
    for name, boxes, mirrored, settings in ways:
        expected = reference(wholes, boxes, mirrored, SIDE)
        what = f"JPEG, {name}"
        clips = job.attempt(what, _decoded, job, images, boxes, mirrored, settings)
        if clips is not None:
            _compare(job, what, clips[:, :, 0].numpy(), expected, JPEG_MEAN)


def _decoded(job: Job, images: Any, boxes: Any, flips: Any, settings: dict[str, Any]) -> Any:
    return decode_jpegs(images, boxes, SIDE, job.device, flips=flips, threads=2, **settings)


def whole_boxes() -> np.ndarray:
    """The whole picture as the box, float32 (N, 1, 4)."""
    return np.array([[[0, 0, height, width]] for height, width in SIDES], np.float32)


def random_boxes(crops: int) -> np.ndarray:
    """Boxes of at least half of each side, odd ones too, float32 (N, crops, 4)."""
    generator, boxes = np.random.default_rng(crops), []
    for sides in SIDES:
        for _ in range(crops):
            shape = [int(generator.integers(side // 2, side + 1)) for side in sides]
            low = [int(generator.integers(0, s - c + 1)) for s, c in zip(sides, shape, strict=True)]
            boxes.append([*low, low[0] + shape[0], low[1] + shape[1]])
    return np.array(boxes, np.float32).reshape(len(SIDES), crops, 4)


def reference(
    wholes: list[np.ndarray], boxes: np.ndarray, flips: np.ndarray | None, size: int
) -> np.ndarray:
    """Crops uint8 (N, C, size, size, 3) of whole frames, cut with NumPy and resized with torch."""
    count, crops = boxes.shape[:2]
    out = torch.empty((count, crops, size, size, 3), dtype=torch.uint8)
    for row, crop in np.ndindex(count, crops):
        y0, x0, y1, x1 = boxes[row, crop].astype(int)
        frame = torch.from_numpy(wholes[row][y0:y1, x0:x1].copy())
        resize(frame[None], out[row, crop, None])
    if flips is not None:
        out[flips] = out[flips].flip(3)
    return out.numpy()


def _compare(job: Job, what: str, found: np.ndarray, expected: np.ndarray, mean: float) -> None:
    """Report how far pixels are from those expected, on the frame that differs most."""
    error = np.abs(found.astype(int) - expected.astype(int)).reshape(len(found), -1)
    worst = float(error.mean(axis=1).max())
    job.check(
        what, worst <= mean and int(error.max()) <= LARGEST, mean=float(error.mean()),
        worst_frame=worst, largest=int(error.max()), equal=float((error == 0).mean()),
        limit=mean,
    )  # fmt: skip


def _videos(job: Job, codec: str) -> None:
    """The same training batches by DALI's video decoder and by PyAV."""
    if codec in ("h264", "hevc") and not job.needs_gpu(f"{codec} by NVDEC"):
        return
    split = shards(job, codec)
    ours, frames = batches(split, str(job.device), decode="video")
    theirs, plain = batches(split, "cpu", decode="pyav")
    assert frames == plain
    shape = (-1, *ours.shape[-3:])
    _compare(job, f"{codec}, DALI against PyAV", ours.reshape(shape), theirs.reshape(shape),
             VIDEO_MEAN)  # fmt: skip


def batches(split: Split, device: str, **settings: Any) -> tuple[np.ndarray, list[list[int]]]:
    """Clips (N, U, T, 64, 64, 3) and ids of the first batches of an epoch."""
    loader = TrainLoader(
        split, SamplingConfig(), AugmentConfig(size=SIDE), LoaderConfig(threads=2, **settings),
        seed=1, batch_size=2, rank=Rank(device=device),
    )  # fmt: skip
    clips, ids = [], []
    for _, batch in zip(range(4), loader.epoch(0), strict=False):
        clips.append(batch.clips.cpu().numpy().copy())
        ids.append(batch.ids.tolist())
    loader.close()
    return np.concatenate(clips), ids


def _handover(job: Job) -> None:
    """Sums of batches by a GPU that lags behind, while the memory given back is overwritten.

    The same with memory that is given back at once must show wrong sums: otherwise the check could
    not see a fault.
    """
    split, expected = shards(job, "mjpeg"), None
    expected = sums(split, job, products=0)
    with poisoned(Poisoned):
        found = sums(split, job, products=PRODUCTS)
    job.check("hand-over to a busy GPU", found == expected, batches=len(found),
              wrong=sum(a != b for a, b in zip(found, expected, strict=True)))  # fmt: skip
    with poisoned(Unguarded):
        unguarded = sums(split, job, products=PRODUCTS)
    wrong = sum(a != b for a, b in zip(unguarded, expected, strict=True))
    job.check("the check of the hand-over sees memory that is given back early", wrong > 0,
              batches=len(unguarded), wrong=wrong)  # fmt: skip


def sums(split: Split, job: Job, products: int, epochs: int = 4) -> list[int]:
    """The sum of each batch, by a GPU that has `products` matrix products to do before each."""
    loader = TrainLoader(
        split, SamplingConfig(), AugmentConfig(size=SIDE), LoaderConfig(), seed=1, batch_size=2,
        rank=Rank(device=str(job.device)),
    )  # fmt: skip
    weight = torch.randn(4096, 4096, device=job.device)
    totals = []
    for epoch in range(epochs):
        for batch in loader.epoch(epoch):
            for _ in range(products):
                weight = torch.nn.functional.normalize(weight @ weight)
            totals.append(batch.clips.sum())
            del batch  # only the loader keeps the memory
    found = [int(total) for total in totals]
    loader.close()
    return found


class Poisoned(OutputsInUse):
    """Overwrites each batch at the moment when its memory is given back to DALI."""

    def add(self, event: torch.cuda.Event, outputs: Any) -> None:
        before = [entry[1] for entry in self._outputs]
        super().add(event, outputs)
        kept = {id(entry[1]) for entry in self._outputs}
        for given_back in before:
            if id(given_back) not in kept:
                poison(given_back)


class Unguarded(OutputsInUse):
    """Gives each batch back before the GPU has used it: a fault that must show."""

    def add(self, event: torch.cuda.Event, outputs: Any) -> None:
        poison(outputs)


def poison(outputs: tuple[Any, ...]) -> None:
    """Overwrite a batch on a stream of its own, as DALI would, and wait for that."""
    for output in outputs:
        pixels = torch.from_dlpack(output.as_tensor())
        if not pixels.is_cuda:
            pixels.fill_(POISON)
            continue
        stream = torch.cuda.Stream(pixels.device)
        with torch.cuda.stream(stream):
            pixels.fill_(POISON)
        stream.synchronize()


@contextmanager
def poisoned(kind: type[OutputsInUse]) -> Iterator[None]:
    """Loaders made in this context keep their outputs in a `kind`."""
    original = resources.OutputsInUse
    resources.OutputsInUse = kind  # type: ignore[misc]
    try:
        yield
    finally:
        resources.OutputsInUse = original  # type: ignore[misc]
