"""Runs one part in this process, for `gpu.check`, which has started it."""

from __future__ import annotations

import importlib
import time
import traceback
from pathlib import Path

import torch
from benches.report import Report

from dsanet.engine import execution
from dsanet.engine.config import RuntimeConfig
from gpu.job import TOY, Job, Sizes


def run_part(name: str, folder: Path, scratch: Path, seconds: float) -> int:
    """Run a part; each row is in `folder`/NAME.json at once. Returns the exit code."""
    deadline = time.monotonic() + seconds
    try:
        job = make_job(Report(name, folder / f"{name}.json"), scratch, deadline)
        importlib.import_module(f"gpu.{name}").run(job)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def make_job(report: Report, scratch: Path, deadline: float) -> Job:
    """A job on the GPU, configured as a training run is, or at toy sizes on the CPU."""
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda:0" if on_gpu else "cpu")
    execution.configure(RuntimeConfig(), device)
    if on_gpu:
        torch.cuda.set_device(device)
    report.environment["toy"] = not on_gpu
    return Job(report, scratch, device, Sizes() if on_gpu else TOY, deadline)


def search_cudnn(scratch: Path) -> int:
    """See `gpu.variants.cudnn_search`."""
    from gpu.variants import cudnn_search

    cudnn_search(make_job(Report("cudnn"), scratch, time.monotonic() + 120))
    return 0
