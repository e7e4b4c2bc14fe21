"""What is tried before a run, and the estimate of what is left of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dsanet.engine import preflight
from dsanet.engine.batching import Layout
from dsanet.engine.config import CheckpointConfig, ValidationConfig
from dsanet.engine.launch.distributed import World
from dsanet.engine.preflight import estimate, validations_left


def run(samples: int, validated: int, every: int, validator: object = 1) -> Any:
    """Ten epochs of five steps of four videos, as far as the estimate looks at a run."""
    config = SimpleNamespace(
        validation=ValidationConfig(every=every), checkpoint=CheckpointConfig()
    )
    layout = Layout(4, 1, 4, 1, 5, 10)
    state = SimpleNamespace(layout=layout, samples=samples, validated=validated)
    return SimpleNamespace(config=config, state=state, validator=validator)


@pytest.mark.parametrize(
    ("samples", "validated", "every", "left"),
    [(0, 0, 1, 10), (0, 0, 3, 4), (0, 0, 5, 2), (0, 0, 20, 1), (60, 3, 3, 3), (70, 3, 1, 7)],
)
def test_validations_that_are_left(samples: int, validated: int, every: int, left: int) -> None:
    assert validations_left(run(samples, validated, every)) == left
    assert validations_left(run(samples, validated, every, validator=None)) == 0


def test_the_estimate_counts_steps_and_validations() -> None:
    line = estimate(run(60, 3, 3), step=2.0, validation=60.0, size=2**30)
    # 35 steps of 2 s and validations after epochs 6, 9 and 10
    for part in ("35 steps of 2000 ms and 3 validations of 0:01:00", "0:04:10 in all"):
        assert part in line
    assert "3 checkpoints of 1.00 GiB" in line
    alone = estimate(run(60, 3, 3, validator=None), step=2.0, validation=0.0, size=0)
    assert "35 steps of 2000 ms, 0:01:10 in all" in alone


@pytest.mark.parametrize(("step", "slow"), [(0.1, [9.0, 3.5, 3.5, 3.5]), (30.0, [9.0, 3.5])])
def test_the_first_steps_do_not_count(
    step: float, slow: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a network on a CPU: algorithms are chosen, then some slow steps come.
    clock, left = 0.0, [factor * step for factor in slow]
    monkeypatch.setattr(preflight.time, "perf_counter", lambda: clock)

    def action() -> None:
        nonlocal clock
        clock += left.pop(0) if left else step

    assert preflight.time_warm(action, World()) == pytest.approx(step)
    assert clock < max(5, 16 * step)
