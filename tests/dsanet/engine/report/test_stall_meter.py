"""The stall meter's verdict on steps whose times are known."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
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
    assert times(5, read=1, decode=2, starved=6, wait=5).culprit == "read"


def test_a_run_that_hardly_waits_is_compute_bound() -> None:
    assert times(0.1, decode=9.0).verdict().startswith("compute-bound: 1.0% of the step")


def test_times_add_up() -> None:
    total = Times()
    for _ in range(3):
        total.add(times(1.0, decode=2.0))
    assert (total.wall, total.stall, total.steps, total.videos) == (30, 3, 300, 2400)
    assert total.stages["decode"] == 6


@pytest.mark.parametrize("busy", [0.0, 0.05])
def test_the_meter_clocks_the_wait_and_not_the_work(busy: float) -> None:
    def slow_batches():
        while True:
            time.sleep(0.02)
            yield Batch(
                clips=torch.zeros(1), labels=torch.zeros(1), ids=np.zeros(1), valid=np.ones(1),
                wait={"decode": 0.5},
            )  # fmt: skip

    meter, batches = StepMeter(torch.device("cpu")), slow_batches()
    meter.fetch(batches)
    first = meter.finish(videos=4).read()
    assert first.stall == 0
    assert 0.02 <= first.start < 0.045
    meter.fetch(batches)
    time.sleep(busy)
    found = meter.finish(videos=4).read()
    assert 0.02 <= found.stall < 0.045
    assert found.wall >= 0.02 + busy
    assert found.stages == {"decode": 0.5}
