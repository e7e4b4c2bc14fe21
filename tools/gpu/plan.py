"""The parts of the check, in the order in which they run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One part of the check, which runs in a process of its own.

    Attributes:
        name: also that of its module in `gpu` and of its JSON file.
        seconds: after which it is stopped, with what it has measured so far on disk.
        text: what it measures or checks.
        card: what of it runs only on a GPU; empty if all of it runs on a CPU too, at toy sizes.
    """

    name: str
    seconds: int
    text: str
    card: str = ""


PARTS = (
    Part(
        "machine", 45,
        "driver, versions, engines, and the libraries that decoding really loads",
        "driver, engines, nvJPEG",
    ),
    Part(
        "pixels", 70,
        "decoded pixels compared with PIL and PyAV; hand-over to a busy GPU",
        "nvJPEG, NVDEC, the hand-over",
    ),
    Part(
        "step", 150,
        "a training step on synthetic input: speed, memory, kernels by kind",
    ),
    Part(
        "loop", 90,
        "training from shards compared with synthetic input",
        "decoding on the GPU, GPU memory",
    ),
    Part(
        "evaluation", 110,
        "8 clips x 3 crops; a start from the compile cache; memory over 500 steps",
        "GPU memory",
    ),
    Part(
        "agreement", 110,
        "compiled compared with eager networks; pytest -m gpu, file by file",
        "pytest -m gpu",
    ),
    Part(
        "rates", 70,
        "decoding rates by batch size, hardware load, threads and codec",
        "nvJPEG, NVDEC",
    ),
    Part(
        "variants", 900,
        "precisions, batch sizes and compiler settings against the baseline",
        "fp16, batches of 64 and 96, CUDA graphs, cuDNN's search",
    ),
)  # fmt: skip
NAMES = tuple(part.name for part in PARTS)


def listing() -> str:
    """What would run, one line for each part."""
    lines = []
    for number, part in enumerate(PARTS, start=1):
        card = f"  [on a GPU only: {part.card}]" if part.card else ""
        lines.append(f"{number}  {part.name:<11} at most {part.seconds:>3} s  {part.text}{card}")
    return "\n".join(lines)
