"""The training loop."""

from __future__ import annotations

import contextlib
import faulthandler
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from dsanet.engine.batching import every_nth, interleaved
from dsanet.engine.checkpoint import CheckpointFolder
from dsanet.engine.errors import NonFiniteError
from dsanet.engine.execution import autocast
from dsanet.engine.launch.signals import Stop
from dsanet.engine.loss import correct, cross_entropy, mix
from dsanet.engine.nonfinite import mended
from dsanet.engine.optim import peak_rate, schedule_factor, set_rate
from dsanet.engine.reader_state import open_epoch
from dsanet.engine.report.gpu_usage import GpuMonitor
from dsanet.engine.report.records import STATS, Pending, Window, epoch_record, train_record
from dsanet.engine.report.stall_meter import StepMeter, Times
from dsanet.engine.setup import Training
from pipelines import Batch


@contextlib.contextmanager
def watched(minutes: float) -> Iterator[Callable[[], None]]:
    """Print the stacks of all threads when the yielded function is not called for so long."""

    def alive() -> None:
        if minutes:
            faulthandler.dump_traceback_later(60 * minutes)

    try:
        yield alive
    finally:
        faulthandler.cancel_dump_traceback_later()


class Loop:
    """Takes a run from where it stands to its end, or to a signal."""

    def __init__(self, training: Training) -> None:
        self.t = training
        self.meter = StepMeter(training.world.device)
        self.monitor = GpuMonitor(training.world)
        self.window = Window()
        self.epoch_times = Times()
        self.pending: Pending | None = None
        self.latest: tuple[Pending, float] | None = None
        self.stop = Stop.NO
        self.save_wanted = False

    def run(self) -> Stop:
        """Train; returns why it ended early, or Stop.NO at the end of the last epoch."""
        t = self.t
        t.model.train()
        while True:
            over = t.samples // t.layout.samples_per_epoch
            if over > t.validated:  # also after a signal between the last step and validation
                self.end_epoch(over)
            if t.samples >= t.layout.total:
                return Stop.NO
            if self.train_epoch(over):
                return self.stop

    def train_epoch(self, epoch: int) -> Stop:
        """The rest of an epoch, up to a signal."""
        t = self.t
        start = t.samples - epoch * t.layout.samples_per_epoch
        place = t.place if start else None
        batches = open_epoch(t.loader, epoch, start, place, t.console.say)
        with watched(t.config.runtime.watchdog_minutes) as alive:
            return self.train_steps(batches, (epoch + 1) * t.layout.samples_per_epoch, alive)

    def train_steps(self, batches: Iterator[Batch], goal: int, alive: Callable[[], None]) -> Stop:
        """Steps up to a position in samples; saves when it is due."""
        t = self.t
        self.meter.restart()
        while t.samples < goal:
            alive()
            self.train_step(batches)
            if self.stop or self.save_wanted or t.save_due():
                self.review()
                t.save()
                self.save_wanted = False
                self.meter.restart()
            if self.stop:
                self.settle()
                return self.stop
        self.settle()
        return Stop.NO

    def train_step(self, batches: Iterator[Batch]) -> None:
        """One optimiser step: `accumulation` forward and backward passes, then the update."""
        t, start = self.t, self.t.samples
        rate = peak_rate(t.config.optim, t.layout.videos)
        rate *= schedule_factor(t.config.schedule, t.epoch)
        set_rate(t.optimizer, rate)
        batch = self.meter.fetch(batches)
        stats = torch.zeros(len(STATS), device=t.world.device)
        stats[2] += len(batch.replaced)
        for part in range(t.layout.accumulation):
            stats[:2] += self.backward(batch, part)
        self.review()  # of the step before: the GPU has finished it while this one was queued
        norm = self.update()
        t.samples, t.place = t.samples + t.layout.videos, batch.state
        self.pending = self.publish(start, rate, stats, norm, batch.ids)
        if t.world.device.type == "cpu":
            self.review()

    def backward(self, batch: Batch, part: int) -> Tensor:
        """Forward and backward of one group; its (loss, videos recognised), for the step's sums.

        Groups are every G-th video of the step with all its views, G = processes x accumulation, so
        that BatchNorm, dropout and mixing see the same groups, with the same draws, whatever the
        number of processes.
        """
        t, parts = self.t, self.t.layout.accumulation
        repeats = t.config.augment.repeats
        draws = t.reseed(group=t.world.rank + part * t.world.size)
        labels = every_nth(batch.labels, part, parts, repeats)
        labels = labels.to(t.world.device, non_blocking=True)
        clips = every_nth(batch.clips, part, parts, repeats)
        clips, targets = mix(clips, labels, t.config.loss, draws)
        with self.alone(last=part == parts - 1):
            with autocast(t.precision, t.world.device):
                logits = t.network(clips)
            loss = cross_entropy(logits.float(), targets, t.config.loss.label_smoothing) / parts
            t.scaler.scale(loss).backward()
        return torch.stack([loss.detach(), correct(logits.detach(), targets).float()])

    def alone(self, *, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Gradients cross processes once a step, with its last micro-batch."""
        if isinstance(self.t.network, DistributedDataParallel) and not last:
            return self.t.network.no_sync()
        return contextlib.nullcontext()

    def update(self) -> Tensor:
        """Clip and apply the gradient, unless it is not finite; returns its norm."""
        t = self.t
        t.scaler.unscale_(t.optimizer)
        bound = t.config.optim.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(t.model.parameters(), bound)
        t.scaler.step(t.optimizer)
        t.scaler.update()
        t.optimizer.zero_grad(set_to_none=True)
        if t.average:
            t.average.update(t.model, t.step)
        return norm

    def publish(
        self, start: int, rate: float, stats: Tensor, norm: Tensor, ids: np.ndarray
    ) -> Pending:
        """Sum the step's statistics over processes and start their way to the CPU."""
        t = self.t
        stats[3] = t.signals.stop == Stop.REQUEUE
        stats[4] = t.signals.stop == Stop.END
        minutes = t.config.checkpoint.every_minutes
        stats[5] = bool(minutes) and time.monotonic() - t.saved_at > 60 * minutes
        t.world.sum(stats)
        ready = None
        if t.world.device.type == "cuda":
            stats, norm = (x.to("cpu", non_blocking=True) for x in (stats, norm))
            ready = torch.cuda.Event()
            ready.record()
        times = self.meter.finish(t.layout.videos)
        return Pending(t.step, start, rate, stats, norm, ready, times, ids)

    def review(self) -> None:
        """Read the pending step's results; the same ones, and so the same decision, everywhere."""
        if (step := self.pending) is None:
            return
        self.pending = None
        if step.ready is not None:
            step.ready.synchronize()  # the only wait for the device in the loop
        t, stats = self.t, dict(zip(STATS, step.stats.tolist(), strict=True))
        loss, norm = stats["loss"] / t.world.size, float(step.norm)
        if not math.isfinite(loss) or (not math.isfinite(norm) and t.precision != "fp16"):
            self.give_up(step, loss, norm)
        self.stop = Stop.END if stats["end"] else Stop.REQUEUE if stats["requeue"] else Stop.NO
        self.save_wanted = self.save_wanted or stats["save"] > 0
        t.replaced += int(stats["replaced"])
        times = step.times.read()
        self.epoch_times.add(times)
        self.window.loss += loss
        self.window.correct += stats["correct"]
        self.window.times.add(times)
        self.latest = (step, norm)
        if t.config.log.ids or step.step % t.config.log.every == 0:
            self.record()

    def settle(self) -> None:
        """Read what is pending and record what has not been, at the end of an epoch or run."""
        self.review()
        if self.window.times.steps:
            self.record()

    def record(self) -> None:
        """Write the window's means to metrics.jsonl and the screen."""
        t, window = self.t, self.window
        assert self.latest is not None
        step, norm = self.latest
        record = train_record(step, window, norm, t.layout)
        record |= {"replaced": t.replaced, **self.monitor.read()}
        if t.config.log.ids:
            record["ids"] = self.global_ids(step.ids)
        self.emit(record)
        self.window = Window()

    def emit(self, record: dict[str, Any]) -> None:
        """Send a record where records go: metrics.jsonl, screen, TensorBoard."""
        t = self.t
        if not t.world.main:
            return
        t.folder.add(record)
        t.console.show(record)
        if t.board is not None:
            t.board.add(record)

    def global_ids(self, ids: np.ndarray) -> list[int]:
        """Sample ids of the step over all processes, in the order of the epoch's plan."""
        return interleaved(self.t.world.gather(ids), self.t.config.augment.repeats)

    def end_epoch(self, epochs: int) -> None:
        """Verdict, validation and checkpoint after an epoch."""
        t = self.t
        score = self.validate(epochs)
        if self.epoch_times.steps:
            self.emit(epoch_record(t.samples, epochs, self.epoch_times))
        self.epoch_times = Times()
        t.validated = epochs
        t.save(score)

    def validate(self, epochs: int) -> float | None:
        """Score the validation split when it is due; the deciding metric."""
        t, every = self.t, self.t.config.validation.every
        if t.validator is None or (epochs % every and epochs < t.layout.epochs):
            return None
        t.world.average_buffers(t.judged)
        scores = t.validator.run(t.judged)
        record = {"kind": "val", "samples": t.samples, "epoch": float(epochs), **scores}
        self.emit(record)
        return float(scores[t.config.validation.metric])

    def give_up(self, step: Pending, loss: float, norm: float) -> None:
        """Dump the state before a step that is not finite, and stop.

        Raises:
            NonFiniteError: always, with the samples and the way to see it again.
        """
        t = self.t
        ids = self.global_ids(step.ids)
        folder = CheckpointFolder(t.folder.path / "nonfinite")
        message = f"loss {loss:g}, gradient norm {norm:g} in step {step.step}"
        if t.world.main:
            # The scaler has skipped this step's update, so these are the weights it began with.
            state, note = mended(t.state(step.samples), t.folder.checkpoints)
            path = folder.save(step.step - 1, state)
            keys = ", ".join(t.split.key(i) for i in ids[:8] if i >= 0)
            message += (
                f"; samples {ids} ({keys} ...); the state before it is in {path}{note}: see it "
                f"again with --resume {path} --out ANOTHER, or lower --optim.lr"
            )
        t.world.barrier()
        raise NonFiniteError(message)
