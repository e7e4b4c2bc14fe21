"""How the benchmark of the loader's tuning rates what was taken."""

from __future__ import annotations

import pytest
from benches.tune import behind, fixed_settings, remeasure

from dsanet.engine.errors import EngineError
from dsanet.engine.tuning.search import Settings, Trial


def test_each_setting_is_measured_in_turn_and_rated_by_its_median() -> None:
    order: list[int] = []
    values = {1: iter([9.0, 2.0, 2.0]), 2: iter([1.0, 1.0, 8.0])}

    def measure(settings: Settings) -> Trial:
        order.append(settings["threads"])
        return Trial(settings, next(values[settings["threads"]]))

    medians = remeasure(measure, [{"threads": 1}, {"threads": 2}, {"threads": 1}], rounds=3)
    assert order == [1, 2, 2, 1, 1, 2]
    assert medians == [({"threads": 1}, 2.0), ({"threads": 2}, 1.0)]
    assert behind(medians, {"threads": 1}) == pytest.approx(1.0)
    assert behind(medians, {"threads": 2}) == 0


def test_a_setting_that_fails_is_left_out() -> None:
    medians = remeasure(lambda s: Trial(s, None if s else 3.0, "no"), [{}, {"threads": 1}], 2)
    assert medians == [({}, 3.0)]
    with pytest.raises(EngineError, match="no setting"):
        remeasure(lambda s: Trial(s, None, "no"), [{}], 1)


def test_settings_that_the_tuning_left_out_are_measured_too() -> None:
    trials, tried = [Trial({}, 1.0)], [("threads", [4, 1]), ("prefetch", [4])]
    singles: list[Settings] = [{"threads": 4}, {"threads": 1}, {"prefetch": 4}]
    assert fixed_settings(trials, tried) == [{}, *singles]
