"""The training loop: steps, validation, checkpoints, records."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsanet.engine.batching import interleaved
from dsanet.engine.checkpoint import CheckpointFolder
from dsanet.engine.config import profiled_steps
from dsanet.engine.errors import EngineError, NonFiniteError
from dsanet.engine.launch.signals import Stop
from dsanet.engine.nonfinite import replace_nonfinite
from dsanet.engine.optim import peak_rate, schedule_factor, set_rate
from dsanet.engine.report.gpu_usage import GpuMonitor
from dsanet.engine.report.profiler import StepProfiler
from dsanet.engine.report.records import STATS, PendingStep, Window, epoch_record, train_record
from dsanet.engine.report.stall_meter import StepMeter, Times
from dsanet.engine.setup import Training
from dsanet.engine.step import forward_backward, update
from pipelines import Batch
from pipelines.hang_limits import restart, stacks_after
from pipelines.ranges import named_range

# Steps in a row that fp16 may skip. Each halves the loss scale: 40 take it from 65,536, where it
# starts, to 2**-24, the smallest number of fp16, and no scale is left to try.
MAX_SKIPPED = 40


@contextlib.contextmanager
def hang_watchdog(minutes: float) -> Iterator[Callable[[], None]]:
    """Print the stacks of all threads when the yielded function is not called for `minutes`."""
    if not minutes:
        yield lambda: None
        return
    with stacks_after(60 * minutes) as limit:
        yield lambda: restart(limit, 60 * minutes)


def build_profiler(training: Training) -> StepProfiler:
    """The profiler that the settings ask for; on rank 0 alone it does anything."""
    config, world = training.config, training.world
    steps = profiled_steps(config.profile) if world.main else None
    memory = world.device if config.profile_memory else None
    return StepProfiler(steps, training.folder.profile, training.console.print, memory)


class Trainer:
    """Trains a run from its present state to its end, or until a signal.

    The results of a step are read while the next one is queued, so that the device never waits
    for the CPU: `self.pending` is the step whose results have not been read.
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        self.config, self.world = training.config, training.world
        self.state, self.layout = training.state, training.state.layout
        self.meter = StepMeter(training.world.device)
        self.monitor = GpuMonitor(training.world)
        self.profiler = build_profiler(training)
        self.window = Window()
        self.epoch_times = Times()
        self.pending: PendingStep | None = None
        self.latest: tuple[PendingStep, float] | None = None
        self.stop = Stop.NO
        self.save_wanted = False
        self.saved_at = time.monotonic()
        self.replaced = 0
        self.skipped = 0
        self.stall = 0.0  # of the last step that was read

    def run(self) -> Stop:
        """Train; returns why training ended early, or Stop.NO at the end of the last epoch."""
        state, layout = self.state, self.layout
        state.model.train()
        with contextlib.closing(self.profiler):
            while True:
                epoch = state.samples // layout.samples_per_epoch
                if epoch > state.validated:  # also after a signal between a step and validation
                    self.end_epoch(epoch)
                if state.samples >= layout.total:
                    return Stop.NO
                if self.train_epoch(epoch):
                    return self.stop

    def train_epoch(self, epoch: int) -> Stop:
        """Train the rest of an epoch, or until a signal."""
        batches, length = self.training.batches(), self.layout.samples_per_epoch
        with hang_watchdog(self.config.runtime.watchdog_minutes) as restart_watchdog:
            return self.train_steps(batches, (epoch + 1) * length, restart_watchdog)

    def train_steps(
        self, batches: Iterator[Batch], end: int, restart_watchdog: Callable[[], None]
    ) -> Stop:
        """Train up to position `end` in samples, or until a signal; save when it is due."""
        self.meter.restart()
        while self.state.samples < end:
            restart_watchdog()
            with self.profiler.step(self.state.step + 1):
                self.train_step(batches)
            if self.stop or self.save_wanted or self.save_due():
                self.read_pending()
                self.save()
                self.meter.restart()
            if self.stop:
                self.record_rest()
                return self.stop
        self.record_rest()
        return Stop.NO  # also if the last step has a signal: it is not saved before validation

    def train_step(self, batches: Iterator[Batch]) -> None:
        """One optimiser step: `accumulation` forward and backward passes, then the update."""
        state, layout = self.state, self.layout
        rate = peak_rate(self.config.optim, layout.videos)
        rate *= schedule_factor(self.config.schedule, state.epoch)
        set_rate(state.optimizer, rate)
        with named_range("wait for data"):
            batch = self.meter.fetch(batches)
        others = self.world.size if self.world.size > 1 else 0
        stats = torch.zeros(len(STATS) + others, device=self.world.device)
        stats[STATS.index("replaced")] += len(batch.replaced)
        stats[:2] = forward_backward(self.training, batch)
        self.read_pending()  # the step before: the device has finished it while this was queued
        norm = update(self.training)
        start = state.samples
        state.samples, state.reader = start + layout.videos, batch.state
        self.pending = self.start_reading(start, rate, stats, norm, batch.ids)
        if self.world.device.type == "cpu":
            self.read_pending()

    def start_reading(
        self, start: int, rate: float, stats: Tensor, norm: Tensor, ids: np.ndarray
    ) -> PendingStep:
        """Sum the step's statistics over processes and start to copy them to the CPU.

        The wish to stop or save is among them, so that all processes act on it at the same step.
        """
        stop, minutes = self.training.signals.stop, self.config.checkpoint.every_minutes
        stats[STATS.index("requeue")] = stop == Stop.REQUEUE
        stats[STATS.index("end")] = stop == Stop.END
        save_due = bool(minutes) and time.monotonic() - self.saved_at > 60 * minutes
        stats[STATS.index("save")] = save_due
        if self.world.size > 1:
            stats[len(STATS) + self.world.rank] = self.stall
        self.world.sum(stats)
        ready = None
        if self.world.device.type == "cuda":
            stats, norm = (x.to("cpu", non_blocking=True) for x in (stats, norm))
            ready = torch.cuda.Event()
            ready.record()
        times = self.meter.finish(self.layout.videos)
        return PendingStep(self.state.step, start, rate, stats, norm, ready, times, ids)

    def read_pending(self) -> None:
        """Read the pending step's results and act on them, in the same way on every process.

        Raises:
            NonFiniteError: when its loss or gradient is not finite.
        """
        if (step := self.pending) is None:
            return
        self.pending = None
        if step.ready is not None:
            step.ready.synchronize()  # the only wait for the device in the loop
        values = step.stats.tolist()
        stats, stalls = dict(zip(STATS, values, strict=False)), values[len(STATS) :]
        loss, norm = stats["loss"] / self.world.size, float(step.norm)
        if not math.isfinite(loss) or (not math.isfinite(norm) and self.state.precision != "fp16"):
            self.stop_nonfinite(step, loss, norm)
        self.count_skipped(step, norm)
        self.stop = Stop.END if stats["end"] else Stop.REQUEUE if stats["requeue"] else Stop.NO
        self.save_wanted = self.save_wanted or stats["save"] > 0
        self.replaced += int(stats["replaced"])
        times = step.times.read()
        self.stall = times.stall
        times.stall_by_rank.update(dict(enumerate(stalls)))
        self.epoch_times.add(times)
        self.window.loss += loss
        self.window.correct += stats["correct"]
        self.window.times.add(times)
        self.latest = (step, norm)
        if self.config.log.ids or step.step % self.config.log.every == 0:
            self.record()

    def count_skipped(self, step: PendingStep, norm: float) -> None:
        """Count the steps in a row whose update the scaler of fp16 has skipped.

        Raises:
            NonFiniteError: when there are `MAX_SKIPPED` of them.
        """
        self.skipped = 0 if math.isfinite(norm) else self.skipped + 1
        if self.skipped >= MAX_SKIPPED:
            raise NonFiniteError(
                f"the last {self.skipped} steps, up to step {step.step}, were all skipped: their "
                "gradients overflow in fp16, with a loss scale that is now "
                f"{self.state.scaler.get_scale():g}; use --runtime.precision bf16 or fp32, or "
                "lower --optim.lr, and run the same command again: it continues from the last "
                "checkpoint"
            )

    def save_due(self) -> bool:
        """Whether `checkpoint.every_steps` asks for a checkpoint now."""
        every = self.config.checkpoint.every_steps
        return bool(every) and self.state.step % every == 0

    def save(self, score: float | None = None) -> None:
        """Write a checkpoint; every process must call it."""
        self.training.save(score)
        self.saved_at = time.monotonic()
        self.save_wanted = False

    def record_rest(self) -> None:
        """Read the pending step and record the steps since the last record, if any."""
        self.read_pending()
        if self.window.times.steps:
            self.record()

    def record(self) -> None:
        """Write the means since the last record to metrics.jsonl and the screen."""
        assert self.latest is not None
        step, norm = self.latest
        record = train_record(step, self.window, norm, self.layout)
        record |= {"replaced": self.replaced, **self.monitor.read()}
        if self.config.log.ids:
            record["ids"] = self.global_ids(step.ids)
        self.emit(record)
        self.window = Window()

    def emit(self, record: dict[str, Any]) -> None:
        """Write a record to metrics.jsonl, the screen and TensorBoard."""
        if not self.world.main:
            return
        self.training.check_lock()
        self.training.folder.add(record)
        self.training.console.show_record(record)
        if self.training.tensorboard is not None:
            self.training.tensorboard.add(record)

    def global_ids(self, ids: np.ndarray) -> list[int]:
        """Sample ids of the step over all processes, in the order of the epoch's plan."""
        return interleaved(self.world.gather(ids), self.config.augment.repeats)

    def end_epoch(self, epochs: int) -> None:
        """Validate, report the waits of the epoch, and save."""
        try:
            score = self.validate(epochs)
        except EngineError:  # on all processes: the same command validates again
            self.save()
            raise
        if self.epoch_times.steps:
            self.emit(epoch_record(self.state.samples, epochs, self.epoch_times))
        self.epoch_times = Times()
        self.state.validated = epochs
        self.save(score)

    def validate(self, epochs: int) -> float | None:
        """Score the validation split when it is due; returns `validation.metric`."""
        validator, settings = self.training.validator, self.config.validation
        if validator is None or (epochs % settings.every and epochs < self.layout.epochs):
            return None
        model = self.state.evaluated_model
        self.world.average_buffers(model)
        scores = validator.run(model, epochs)
        samples = self.state.samples
        self.emit({"kind": "val", "samples": samples, "epoch": float(epochs), **scores})
        return float(scores[settings.metric])

    def stop_nonfinite(self, step: PendingStep, loss: float, norm: float) -> None:
        """Save the state before a step whose loss or gradient is not finite, and stop.

        Raises:
            NonFiniteError: always, with the samples and the command that repeats the step.
        """
        ids = self.global_ids(step.ids)
        message = f"loss {loss:g}, gradient norm {norm:g} in step {step.step}"
        if self.world.main:
            # The scaler has skipped the step's update, so the weights are those before the step.
            content = self.state.state_dict()
            content["samples"] = step.samples
            content, note = replace_nonfinite(content, self.training.folder.checkpoints)
            folder = CheckpointFolder(self.training.folder.path / "nonfinite")
            path = folder.save(step.step - 1, content)
            keys = ", ".join(self.state.split.key(i) for i in ids[:8] if i >= 0)
            message += (
                f"; samples {ids} ({keys} ...); the state before it is in {path}{note}: repeat the "
                f"step with --resume {path} --out ANOTHER, or lower --optim.lr"
            )
        self.world.barrier()
        raise NonFiniteError(message)
