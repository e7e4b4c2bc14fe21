"""Other settings of the training step, each alternating with the baseline in one process.

A row is written when a variant is done, so that the time limit cuts the tail. The first ones are
those of which the goals need a figure.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gpu.job import Job
from gpu.processes import end_tree
from gpu.step import Step, peak_gib

SCRIPT = Path(__file__).resolve().parents[1] / "gpu_check.py"
CUDNN = "cuDNN tries all algorithms"
LEAST_SECONDS = 25.0  # to build and compile one more variant
MAX_AUTOTUNE = {"max_autotune": True, "coordinate_descent_tuning": True}


@dataclass(frozen=True)
class Variant:
    """A change to the baseline.

    Attributes:
        name: as in the table.
        settings: of train.py, KEY=VALUE.
        model: another network.
        options: of `torch.compile`.
        card: whether it needs a GPU.
    """

    name: str
    settings: tuple[str, ...] = ()
    model: str = ""
    options: dict[str, object] = field(default_factory=dict)
    card: bool = False


def _batch(videos: int) -> tuple[str, str]:
    return f"batch.videos={videos}", f"batch.per_gpu={videos}"


REAL = (
    Variant("T = 8, batch 16", ("sampling.frames=8", *_batch(16))),
    Variant("TSN, without DSA", model="tsn_i3d_r50"),
    Variant("fp16", ("runtime.precision=fp16",), card=True),
    Variant("batch 64", _batch(64), card=True),
    Variant("loop_reindexing_after_fusion off", options={"loop_reindexing_after_fusion": False}),
    Variant("conv_1x1_as_mm", options={"conv_1x1_as_mm": True}),
    Variant("EMA of the weights", ("optim.ema=0.999",)),
    Variant("no clipping of the gradient", ("optim.clip_norm=0",)),
    Variant("not compiled", ("compile=false",)),
    Variant("batch 96", _batch(96), card=True),
    Variant("T = 8, batch 32", ("sampling.frames=8",), card=True),
    Variant(CUDNN, card=True),
    Variant("max-autotune, no CUDA graphs", options=MAX_AUTOTUNE, card=True),
    Variant("CUDA graphs", options={"triton.cudagraphs": True}, card=True),
    Variant("fp32 (TF32)", ("runtime.precision=fp32",)),
)
TOY = (
    Variant("T = 8", ("sampling.frames=8",)),
    Variant("TSN, without DSA", model="tsn_i3d_r18"),
    Variant("no such option", options={"no_such_option": True}),
)


def run(job: Job) -> None:
    if job.gpu:
        torch._dynamo.config.recompile_limit = 64  # each variant compiles the same code again
    baseline = Step(job, "baseline")
    baseline.first()
    job.report.add(what="baseline", **figures(job, baseline))
    for variant in TOY if job.sizes.toy else REAL:
        if job.remaining < (0 if job.sizes.toy else LEAST_SECONDS):
            job.report.add(what=variant.name, not_run="no time left")
        elif variant.card and not job.gpu:
            job.report.add(what=variant.name, not_run="needs a GPU")
        elif variant.name == CUDNN:
            job.attempt(variant.name, _compare_processes, job, baseline, optional=True)
        else:
            job.attempt(variant.name, _compare, job, baseline, variant, optional=True)
        if not usable(job):
            job.report.add(what="GPU", failed=f"unusable after {variant.name}: the rest is not run")
            return
    baseline.close()


def usable(job: Job) -> bool:
    """Whether the GPU still takes work: some errors end that for the whole process."""
    try:
        job.synchronize()
    except RuntimeError:
        return False
    return True


def figures(job: Job, step: Step) -> dict[str, Any]:
    """Speed and memory of one step alone."""
    peak = peak_gib(job, lambda: step.block(1))
    seconds = step.block(job.sizes.steps)
    return {"ms": 1e3 * seconds, "videos_per_second": step.videos / seconds, "peak_gib": peak}


def _compare(job: Job, baseline: Step, variant: Variant) -> None:
    """Time a variant and the baseline in alternating blocks."""
    step = Step(job, "variant", variant.settings, variant.model)
    try:
        if variant.options:
            step.compile_with(variant.options)
        first = step.first()
        peak = peak_gib(job, lambda: step.block(1))
        blocks: list[tuple[float, float]] = []
        for _ in range(job.sizes.blocks):
            blocks.append((baseline.block(job.sizes.steps), step.block(job.sizes.steps)))
        job.report.add(what=variant.name, **compared(blocks, baseline.videos, step.videos),
                       peak_gib=peak, first_step_seconds=first)  # fmt: skip
    finally:
        step.close()


def compared(
    blocks: list[tuple[float, float]], baseline_videos: int, videos: int
) -> dict[str, float]:
    """Figures of a variant; blocks: seconds a step of the baseline and of the variant.

    over_baseline: time of a video relative to the baseline's, less 1: the median over the blocks.
    """
    own = [seconds for _, seconds in blocks]
    typical = statistics.median(own)
    times = [(b / videos) / (a / baseline_videos) for a, b in blocks]
    return {
        "ms": 1e3 * typical,
        "videos_per_second": videos / typical,
        "baseline_ms": 1e3 * statistics.median(a for a, _ in blocks),
        "over_baseline": statistics.median(times) - 1,
        "spread": (max(own) - min(own)) / typical,
    }


def _compare_processes(job: Job, baseline: Step) -> None:
    """Time the baseline in a new process in which cuDNN tries all its algorithms.

    cuDNN's choice for a shape holds as long as a process, so this one has made its choice.
    """
    command = [sys.executable, str(SCRIPT), "--cudnn-search", "--scratch", str(job.scratch)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        out, _ = process.communicate(timeout=max(1.0, min(120.0, job.remaining - 5)))
    finally:
        end_tree(process.pid) if process.poll() is None else None
        process.wait()
    found = json.loads(out.splitlines()[-1])
    seconds = baseline.block(job.sizes.steps)
    blocks = [(seconds, found["ms"] / 1e3)]
    job.report.add(what=CUDNN, **compared(blocks, baseline.videos, baseline.videos),
                   peak_gib=found["peak_gib"])  # fmt: skip


def cudnn_search(job: Job) -> None:
    """Print the figures of the baseline, with cuDNN's search over all algorithms, as JSON."""
    torch.backends.cudnn.benchmark_limit = 0
    step = Step(job, "baseline")
    step.first()
    print(json.dumps(figures(job, step)))
    step.close()
