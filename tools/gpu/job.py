"""What a part of the check gets: its report, folders, device and sizes."""

from __future__ import annotations

import contextlib
import gc
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from benches.report import Report


@dataclass(frozen=True)
class Sizes:
    """How large everything is: as in a real run on a GPU, or as small as possible on a CPU.

    Attributes:
        toy: the latter; no figure then says anything about a GPU.
        settings: of train.py, KEY=VALUE, for the baseline step.
        model: of the baseline.
        batch, frames, size, width: of the baseline step: videos, T, pixels, channels of the stem.
        steps, blocks: timed steps in a block, and blocks.
        clips: different videos in the shard set.
        crop: side of the crops in evaluation.
        memory_steps: training steps in which memory is watched.
        seconds: of each measurement of a rate.
    """

    toy: bool = False
    settings: tuple[str, ...] = ()
    model: str = "dsa_i3d_r50"
    batch: int = 32
    frames: int = 4
    size: int = 224
    width: int = 64
    steps: int = 20
    blocks: int = 3
    clips: int = 8
    crop: int = 256
    memory_steps: int = 500
    seconds: float = 1.5


TOY = Sizes(
    toy=True,
    settings=("network.width=8", "augment.size=32", "augment.short_sides=[32,40]",
              "batch.videos=2", "batch.per_gpu=2"),
    model="dsa_i3d_r18", batch=2, size=32, width=8, steps=1, blocks=1, clips=1, crop=32,
    memory_steps=4, seconds=0.05,
)  # fmt: skip


@dataclass
class Job:
    """The work of one part.

    Attributes:
        report: rows go there; each is on disk at once.
        scratch: a folder that all parts share: videos, shards, the compile cache.
        device: the GPU, or the CPU without one.
        deadline: of `time.monotonic`; a part stops by itself before it begins what it cannot end.
    """

    report: Report
    scratch: Path
    device: torch.device
    sizes: Sizes
    deadline: float

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def remaining(self) -> float:
        """Seconds left to this part."""
        return self.deadline - time.monotonic()

    def attempt(
        self, what: str, function: Callable[..., Any], *given: Any, optional: bool = False
    ) -> Any:
        """Call a function; what it raises becomes a row and a traceback in the log, not an end.

        optional: that row is not a failure of the check. Returns the result, or None where the
        function raised.
        """
        try:
            return function(*given)
        except Exception as error:
            lines = traceback.format_exc().splitlines()  # torch lists hundreds of options in one
            print("\n".join(line[:300] for line in lines), file=sys.stderr)
            reason = f"{type(error).__name__}: {error}".strip()
            key = "unavailable" if optional else "failed"
            self.report.add(what=what, **{key: " ".join(reason.split())[:300]})
        finally:
            gc.collect()
            if self.gpu:
                with contextlib.suppress(RuntimeError):  # of a GPU that an error has left unusable
                    torch.cuda.empty_cache()
        return None

    def check(self, what: str, passed: bool, **figures: Any) -> None:
        """Report a check and the figures on which it is based."""
        self.report.add(what=what, passed=bool(passed), **figures)

    def needs_gpu(self, what: str) -> bool:
        """Whether there is a GPU; if not, `what` is reported as not run."""
        if not self.gpu:
            self.report.add(what=what, not_run="needs a GPU")
        return self.gpu

    def synchronize(self) -> None:
        if self.gpu:
            torch.cuda.synchronize(self.device)
