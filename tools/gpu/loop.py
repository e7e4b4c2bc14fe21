"""Training from shards compared with synthetic input, with decoding on the GPU and on the CPU."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import torch
from benches import train as bench
from benches.report import Labelled

from dsanet.engine.trainer import Trainer
from gpu.job import Job
from gpu.step import build
from pipelines import Batch

GIB = 2**30


def run(job: Job) -> None:
    job.report.environment["clips"] = bench.kind_of_videos() if not job.sizes.toy else "generated"
    ways = ("gpu", "cpu") if job.gpu else ("cpu",)
    if not job.gpu:
        job.needs_gpu("decode_on gpu")
    for decode_on in ways:
        job.attempt(f"decode_on {decode_on}", measure, job, decode_on)


def measure(job: Job, decode_on: str) -> None:
    folder = job.scratch / "runs" / f"loop-{decode_on}-{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    training = build(job, folder, (f"loader.decode_on={decode_on}",))
    report = Labelled(job.report, {"decode_on": decode_on})
    try:
        training.state.model.train()
        trainer = Trainer(training)
        contestants: dict[str, Iterator[Batch]] = {"synthetic": bench.synthetic(training)}
        bench.run_block(trainer, contestants["synthetic"], 1)
        before = memory(job)
        contestants["shards"] = bench.on_other_cores(training)
        bench.run_block(trainer, contestants["shards"], 1)
        bench.compare(trainer, contestants, job.sizes.blocks, job.sizes.steps, report)
        report.add(**memory_row(before, memory(job)))
        for name, batches in contestants.items():
            report.add(case=f"wake-up of a thread, {name}", **delays(trainer, batches, job))
    finally:
        training.close()


def memory(job: Job) -> dict[str, float]:
    """GiB of the GPU's memory: in use by all, and reserved by torch; empty on a CPU."""
    if not job.gpu:
        return {}
    job.synchronize()
    free, total = torch.cuda.mem_get_info(job.device)
    return {
        "used_gib": (total - free) / GIB,
        "reserved_gib": torch.cuda.memory_reserved(job.device) / GIB,
        "peak_gib": torch.cuda.max_memory_allocated(job.device) / GIB,
    }


def memory_row(before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    """GPU memory with the loader, and what it takes outside torch (`loader_gib`)."""
    row: dict[str, Any] = {"case": "GPU memory", **after}
    if after:
        others = [sizes["used_gib"] - sizes["reserved_gib"] for sizes in (before, after)]
        row["loader_gib"] = others[1] - others[0]
    return row


def delays(trainer: Trainer, batches: Iterator[Batch], job: Job) -> dict[str, float]:
    """How late a thread that sleeps 1 ms gets the interpreter lock during training, milliseconds.

    The thread that launches the GPU's work waits as long whenever it comes back from torch.
    """
    with WakeUps() as probe:
        bench.run_block(trainer, batches, job.sizes.steps)
    return probe.summary()


class WakeUps:
    """Measures, in a thread, how late a sleep of 1 ms ends."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            start = time.perf_counter()
            time.sleep(0.001)
            self.late.append(1e3 * (time.perf_counter() - start) - 1)

    def __enter__(self) -> WakeUps:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def summary(self) -> dict[str, float]:
        """Median, 99th percentile and mean, in milliseconds."""
        ordered = sorted(self.late) or [0.0]
        return {
            "median_ms": statistics.median(ordered),
            "p99_ms": ordered[int(0.99 * (len(ordered) - 1))],
            "mean_ms": statistics.fmean(ordered),
            "samples": len(self.late),
        }
