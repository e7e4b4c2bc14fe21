"""A training step on synthetic input: its speed and memory, and its kernels by kind."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from benches import train as bench
from benches.timing import alternate
from torch.profiler import ProfilerActivity, profile

from dsanet.complexity import View, count_model
from dsanet.engine.setup import Training
from dsanet.engine.trainer import Trainer
from gpu.clips import training_set
from gpu.job import Job, Sizes
from gpu.kernels import Kernel, sums_by_kind
from pipelines import Batch

STEPS = 1000  # that the split of a run has videos for
PROFILED = 3  # steps
SHOWN = 30  # kernels


class Step:
    """A training run on one batch of noise that stays on the device.

    name: of its run folder in the scratch folder; settings: of train.py, KEY=VALUE, beside those of
    the job's sizes.
    """

    def __init__(
        self, job: Job, name: str, settings: tuple[str, ...] = (), model: str = ""
    ) -> None:
        folder = job.scratch / "runs" / f"{name}-{time.monotonic_ns()}"
        folder.mkdir(parents=True)
        self.training = build(job, folder, settings, model)
        self.trainer = Trainer(self.training)
        self.training.state.model.train()
        self.batches: Iterator[Batch] = bench.synthetic(self.training)
        self.videos = self.training.state.layout.videos

    def compile_with(self, options: dict[str, object]) -> None:
        """Compile the network anew, with options of `torch.compile`."""
        model = self.training.state.model
        self.training.network = torch.compile(  # type: ignore[assignment]
            model, fullgraph=True, dynamic=False, options=options
        )

    def first(self) -> float:
        """Seconds of the first step, which compiles and chooses algorithms."""
        start = time.perf_counter()
        self.trainer.train_step(self.batches)
        bench.wait_for(self.trainer)
        return time.perf_counter() - start

    def block(self, steps: int) -> float:
        """Seconds a step."""
        return bench.run_block(self.trainer, self.batches, steps)

    def close(self) -> None:
        self.training.close()


def build(job: Job, folder: Path, settings: tuple[str, ...] = (), model: str = "") -> Training:
    """A run as `bench.py train` measures it, on a split that is long enough for all steps."""
    args = bench_arguments(job.sizes, settings, model)
    return bench.build(args, training_set(job), folder, steps=STEPS)


def bench_arguments(
    sizes: Sizes, settings: tuple[str, ...] = (), model: str = ""
) -> argparse.Namespace:
    """Arguments of `bench.py train`."""
    return argparse.Namespace(model=model or sizes.model, set=[*sizes.settings, *settings])


def peak_gib(job: Job, step: Callable[[], object]) -> float | None:
    """Peak memory that torch's tensors take during `step`; None on a CPU."""
    if not job.gpu:
        step()
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(job.device)
    step()
    return torch.cuda.max_memory_allocated(job.device) / 2**30


def run(job: Job) -> None:
    rates = job.attempt("rates of the device", device_rates, job)
    step = Step(job, "baseline")
    first = step.first()
    job.report.add(what="first step, nothing in the cache", seconds=first)
    job.attempt("training step", _speed, job, step)
    kernels = job.attempt("profile", profiled, job, step)
    if kernels:
        job.attempt("kernels", _report_kernels, job, step, kernels, rates)
    step.close()


def _speed(job: Job, step: Step) -> None:
    """Time the step in blocks; a row after each."""
    sizes, seconds = job.sizes, []
    peak = peak_gib(job, lambda: step.block(1))
    view = View(4, sizes.frames, sizes.size)
    cost = count_model(sizes.model, 10, view, width=sizes.width)
    for _ in range(sizes.blocks):
        seconds.append(step.block(sizes.steps))
        typical = statistics.median(seconds)
        job.report.add(
            what="training step", model=sizes.model, batch=step.videos, frames=sizes.frames,
            precision=step.training.state.precision, ms=1e3 * typical,
            videos_per_second=step.videos / typical, blocks=len(seconds),
            spread=(max(seconds) - min(seconds)) / typical,
            tflops=6e-12 * cost.multiply_adds * step.videos / typical, peak_gib=peak,
        )  # fmt: skip


def device_rates(job: Job) -> dict[str, float]:
    """What the device reaches at best: matrix products in TFLOP/s, copies in GB/s."""
    side, elements = (8192, 2**28) if job.gpu else (256, 2**20)
    dtype = torch.bfloat16 if job.gpu else torch.float32
    a, b = (torch.randn(side, side, device=job.device, dtype=dtype) for _ in range(2))
    source = torch.zeros(elements, device=job.device, dtype=dtype)
    target, out = torch.empty_like(source), torch.empty_like(a)

    def waited(call: Callable[[], object]) -> Callable[[], None]:
        def done() -> None:
            call()
            job.synchronize()

        return done

    times = alternate(
        {"product": waited(lambda: torch.mm(a, b, out=out)),
         "copy": waited(lambda: target.copy_(source))},
        blocks=3, calls=5, warmup=2,
    )  # fmt: skip
    rates = {
        "tflops": 2 * side**3 / times["product"].median / 1e12,
        "gb_per_s": 2 * source.nbytes / times["copy"].median / 1e9,
    }
    job.report.add(what="rates of the device", precision=str(dtype), **rates)
    return rates


def profiled(job: Job, step: Step) -> list[Kernel]:
    """Kernels of a step, the longest first; on a CPU the operators that do the work."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if job.gpu else [])]
    step.block(1)
    with profile(activities=activities) as profiler:
        for _ in range(PROFILED):
            step.trainer.train_step(step.batches)
        bench.wait_for(step.trainer)
    found = []
    for event in profiler.key_averages():
        on_gpu = str(event.device_type).endswith("CUDA")
        if on_gpu != job.gpu or getattr(event, "is_user_annotation", False):
            continue
        micros = event.self_device_time_total if job.gpu else event.self_cpu_time_total
        if micros > 0:
            found.append(Kernel(event.key, micros / 1e3 / PROFILED, event.count / PROFILED))
    return sorted(found, key=lambda kernel: -kernel.ms)


def _report_kernels(
    job: Job, step: Step, kernels: list[Kernel], rates: dict[str, float] | None
) -> None:
    total = sum(kernel.ms for kernel in kernels)
    job.report.add(what="all kernels of a step", ms=total, kernels=sum(k.calls for k in kernels))
    for kind, ms, share in sums_by_kind(kernels):
        job.report.add(what="sum", kind=kind, ms=ms, share=share)
    for row in limits(job.sizes, step.videos, kernels, rates or {}):
        job.report.add(**row)
    for kernel in kernels[:SHOWN]:
        job.report.add(what="kernel", ms=kernel.ms, calls=kernel.calls, kind=kernel.kind,
                       name=kernel.name[:160])  # fmt: skip


def limits(
    sizes: Sizes, videos: int, kernels: list[Kernel], rates: dict[str, float]
) -> list[dict[str, object]]:
    """The two sums beside what the device could reach.

    Convolutions and products: the arithmetic of a step, three times that of a forward pass. All
    passes over the maps: how often the time would suffice to move the outputs of all batch norms,
    in 16 bits.
    """
    cost = count_model(sizes.model, 10, View(4, sizes.frames, sizes.size), width=sizes.width)
    arithmetic = sum(k.ms for k in kernels if k.kind.startswith(("convolution", "matrix"))) / 1e3
    passes = sum(k.ms for k in kernels if k.kind in ("BN statistics", "elementwise", "copy")) / 1e3
    tflop, gigabytes = 6e-12 * cost.multiply_adds * videos, 2e-9 * cost.norm_elements * videos
    rows: list[dict[str, object]] = []
    if arithmetic:
        rate = tflop / arithmetic
        best = rates.get("tflops")
        rows.append({"what": "convolutions and products", "ms": 1e3 * arithmetic, "tflop": tflop,
                     "tflops": rate, "share_of_best": rate / best if best else None})  # fmt: skip
    if passes:
        best = rates.get("gb_per_s")
        times = passes * best / gigabytes if best else None
        rows.append({"what": "passes over the maps", "ms": 1e3 * passes, "gb_of_one": gigabytes,
                     "passes_at_best": times})  # fmt: skip
    return rows
