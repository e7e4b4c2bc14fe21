"""The stall meter's times and its verdict on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch

from dsanet.engine.report.stall_meter import StepMeter, Times
from pipelines import Batch


def times(stall: float, **stages: float) -> Times:
    return Times(wall=10.0, stall=stall, stages=Counter(stages), steps=100, videos=800)


def test_a_run_that_waits_is_data_bound_and_the_stage_is_named() -> None:
    verdict = times(3.8, read=1.0, decode=6.0, wait=3.8).verdict()
    assert verdict.startswith("data-bound: 38% of the step waits for data, longest for decode")
    assert "1.61 times as fast" in verdict
    assert "step 100 ms" in verdict


def test_a_starved_decoder_means_that_reading_is_slow() -> None:
    assert times(5, read=1, decode=2, starved=6, wait=5).slowest_stage == "read"


def test_a_run_that_hardly_waits_is_compute_bound() -> None:
    assert times(0.1, decode=9.0).verdict().startswith("compute-bound: 1.0% of the step")


def test_the_process_that_waits_most_decides() -> None:
    one = times(0.1, decode=9.0)
    one.stall_by_rank.update({0: 0.1, 1: 3.0, 2: 1.0})
    assert one.worst == (1, 0.3)
    verdict = one.verdict()
    assert verdict.startswith("data-bound: 30% of the step waits for data on rank 1 (1.0% on rank")
    one.add(one)
    assert one.worst == (1, 0.3)


def test_one_process_is_its_own_worst() -> None:
    assert times(3.8).worst == (0, 0.38)


def test_times_add_up() -> None:
    total = Times()
    for _ in range(3):
        total.add(times(1.0, decode=2.0))
    assert (total.wall, total.stall, total.steps, total.videos) == (30, 3, 300, 2400)
    assert total.stages["decode"] == 6


class Clock:
    """A clock that stands still until it is advanced."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def test_the_meter_separates_waiting_from_work() -> None:
    clock = Clock()

    def slow_batches() -> Iterator[Batch]:
        while True:
            clock.advance(2.0)
            yield Batch(
                clips=torch.zeros(1), labels=torch.zeros(1), ids=np.zeros(1), valid=np.ones(1),
                wait={"decode": 0.5},
            )  # fmt: skip

    meter, batches = StepMeter(torch.device("cpu"), clock), slow_batches()
    clock.advance(50.0)  # building the run is not part of a step
    meter.restart()
    meter.fetch(batches)
    clock.advance(3.0)
    first = meter.finish(videos=4).read()
    assert (first.start, first.stall, first.wall) == (2.0, 0.0, 3.0)
    meter.fetch(batches)
    clock.advance(5.0)
    second = meter.finish(videos=4).read()
    assert (second.start, second.stall, second.wall) == (0.0, 2.0, 7.0)
    assert (second.steps, second.videos) == (1, 4)
    assert second.stages == {"decode": 0.5}
