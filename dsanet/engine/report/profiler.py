"""Traces of training steps, and snapshots of the GPU's memory."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile, schedule

ROWS = 60  # of the table of kernels
ENTRIES = 200_000  # allocations that a memory history keeps


class StepProfiler:
    """Profiles some steps of a run with torch.profiler, on rank 0.

    Writes trace-steps-A-B.json.gz, which Perfetto opens, and kernels-steps-A-B.txt, a table of
    operators and kernels by time. A and B are numbers of steps of the run.

    steps: counted from this start, from 1; None profiles nothing. memory: of this GPU a snapshot
    is written too. report: called with a line that names the files.
    """

    def __init__(
        self,
        steps: range | None,
        folder: Path,
        report: Callable[[str], None],
        memory: torch.device | None = None,
    ) -> None:
        self.steps, self.folder, self.report, self.memory = steps, folder, report, memory
        self._begun = 0  # steps of this start
        self._last = 0  # number in the run of the last profiled step
        self._profile: profile | None = None

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Context of step `number` of the run."""
        if self.steps is None:
            yield
            return
        self._begun += 1
        warmup = min(self.steps.start - 1, 1)  # starting the profiler distorts one step
        if self._begun == self.steps.start - warmup:
            self._start(warmup, len(self.steps))
        yield
        if self._profile is not None:
            self._last = number
            self._profile.step()
            if self._begun == self.steps[-1]:
                self.close()

    def close(self) -> None:
        """End the profile; where the run ends before its last step, that many steps are written."""
        running, self._profile = self._profile, None
        if running is not None:
            running.stop()

    def _start(self, warmup: int, count: int) -> None:
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that there is no warm-up
            self._profile = profile(
                activities=activities,
                schedule=schedule(wait=0, warmup=warmup, active=count, repeat=1),
                on_trace_ready=self._write,
                # The loader's threads too.
                experimental_config=_ExperimentalConfig(profile_all_threads=True),
            )
        self._profile.start()

    def _write(self, result: profile) -> None:
        assert self.steps is not None
        count = self._begun - self.steps.start + 1
        name = f"steps-{self._last - count + 1}-{self._last}"
        trace, table = self.folder / f"trace-{name}.json.gz", self.folder / f"kernels-{name}.txt"
        self.folder.mkdir(parents=True, exist_ok=True)
        result.export_chrome_trace(str(trace))
        order = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        averages = result.key_averages()
        table.write_text(averages.table(sort_by=order, row_limit=ROWS) + "\n", encoding="utf-8")
        self.report(
            f"profile: {trace} (open it at https://ui.perfetto.dev, or draw it with "
            f"tools/plot_trace.py), {table.name}"
        )
        if self.memory is not None:
            write_memory(self.folder, name, self.memory, self.report)


def record_memory_history(device: torch.device) -> None:
    """From now on keep the stack of each allocation on the GPU, for `write_memory`."""
    if device.type == "cuda":
        torch.cuda.memory._record_memory_history(max_entries=ENTRIES)


def write_memory(
    folder: Path, name: str, device: torch.device, report: Callable[[str], None]
) -> None:
    """Write a snapshot of the GPU's memory, with stacks if there is a history; not on a CPU."""
    if device.type != "cuda":
        return
    path = folder / f"memory-{name}.pickle"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.cuda.memory._dump_snapshot(str(path))
    except (OSError, RuntimeError) as error:  # of a full disk, or of a GPU that failed
        report(f"WARNING: {path}: no snapshot of the memory: {error}")
        return
    report(f"memory snapshot: {path} (open it at https://pytorch.org/memory_viz)")


@contextlib.contextmanager
def memory_on_failure(
    folder: Path, device: torch.device, rank: int, report: Callable[[str], None]
) -> Iterator[None]:
    """Context that writes a snapshot when the GPU's memory runs out inside."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        # The frames of the error still hold the tensors that were in the way.
        write_memory(folder, f"out-of-memory-rank-{rank}", device, report)
        raise
