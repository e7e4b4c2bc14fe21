"""Evaluation with 8 clips x 3 crops, a start from the compile cache, and memory over many steps."""

from __future__ import annotations

import argparse
import resource
import time

from benches import eval as bench
from benches import train as bench_train

from dsanet.engine.trainer import Trainer
from gpu.clips import training_set
from gpu.job import Job
from gpu.loop import memory
from gpu.step import build

SAMPLES = 10  # of the memory
GROWTH_GIB = 0.25  # allowed between the second sample and the last one


def run(job: Job) -> None:
    job.attempt("evaluation", _evaluate, job)
    job.attempt("memory", _watch_memory, job)


def _evaluate(job: Job) -> None:
    sizes, parser = job.sizes, argparse.ArgumentParser()
    bench.add_arguments(parser)
    words = ["--data", str(training_set(job)), "--model", sizes.model, "--width", str(sizes.width)]
    words += ["--size", str(sizes.crop), "--blocks", str(sizes.blocks)]
    if sizes.toy:
        words += ["--batches", "1"]
    bench.run(parser.parse_args(words), job.report)


def _watch_memory(job: Job) -> None:
    """Train from shards; the first step finds the graph of part `step` in the cache."""
    folder = job.scratch / "runs" / f"memory-{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    start = time.perf_counter()
    training = build(job, folder)
    samples: list[dict[str, float]] = []
    try:
        training.state.model.train()
        trainer, batches = Trainer(training), training.loader.epoch(0)
        trainer.train_step(batches)
        bench_train.wait_for(trainer)
        job.report.add(case="build and first step, warm cache", seconds=time.perf_counter() - start)
        every = max(1, job.sizes.memory_steps // SAMPLES)
        for number in range(1, job.sizes.memory_steps + 1):
            trainer.train_step(batches)
            if number % every == 0:
                samples.append(usage(job))
                job.report.add(case="memory", step=number, **samples[-1])
            if job.remaining < 5:
                break
    finally:
        training.close()
    grown = growth(samples)
    job.report.add(case="growth of memory", what="growth of memory", passed=grown <= GROWTH_GIB,
                   gib=grown, steps=len(samples) * every)  # fmt: skip


def usage(job: Job) -> dict[str, float]:
    """GiB in use: resident set of this process, highest so far, and memory of the GPU."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"resident_gib": resident, **memory(job)}


def growth(samples: list[dict[str, float]]) -> float:
    """The largest growth in GiB of a kind of memory from the second sample to the last one."""
    if len(samples) < 3:
        return 0.0
    return max(samples[-1][name] - samples[1][name] for name in samples[1])
