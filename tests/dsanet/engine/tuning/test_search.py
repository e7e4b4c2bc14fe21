"""Which settings the tuning tries and takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dsanet.engine.tuning.search import Settings, Trial, axes, best_of, search, table
from pipelines import LoaderConfig
from pipelines.decode.graph import GraphSpec

ALONE = 0.1
GPU = GraphSpec("jpeg", 1, 8, threads=4, device_id=0)
CPU = GraphSpec("jpeg", 1, 8, threads=2)
AXES = axes(LoaderConfig(), CPU, cores=2)


def measured(seconds: Callable[[Settings], float]) -> Callable[[Settings], Trial]:
    return lambda settings: Trial(settings, seconds(settings))


def never() -> bool:
    return False


def test_the_fastest_combination_is_taken() -> None:
    def decode_bound(settings: Settings) -> float:
        return max(ALONE, 0.8 / settings.get("threads", 2) - 0.01 * settings.get("prefetch", 2))

    trials = list(search(measured(decode_bound), AXES, ALONE, never))
    assert best_of(trials).settings == {"threads": 4, "prefetch": 4}
    assert [line.endswith("<- taken") for line in table(trials, ALONE)].count(True) == 1


def test_a_loader_that_keeps_up_is_left_alone() -> None:
    trials = list(search(measured(lambda settings: ALONE * 1.01), AXES, ALONE, never))
    assert trials == [Trial({}, ALONE * 1.01)]


def test_a_difference_within_the_noise_changes_nothing() -> None:
    noise = measured(lambda settings: 0.2 - 0.001 * len(settings))
    trials = list(search(noise, AXES, ALONE, never))
    assert len(trials) == 5
    assert best_of(trials).settings == {}


def test_settings_that_fail_are_passed_over() -> None:
    def fails(settings: Settings) -> Trial:
        if settings.get("threads") == 4:
            return Trial(settings, failure="out of memory")
        return Trial(settings, 0.3 - 0.1 * (settings.get("prefetch", 2) == 4))

    trials = list(search(fails, AXES, ALONE, never))
    assert best_of(trials).settings == {"prefetch": 4}
    assert any("out of memory" in line for line in table(trials, ALONE))


def test_a_first_trial_on_a_cold_machine_does_not_decide() -> None:
    cold = iter([0.3, *[0.2] * 9])
    trials = list(search(lambda settings: Trial(settings, next(cold)), AXES, ALONE, never))
    assert trials[-1].settings == {}
    assert best_of(trials) is trials[-1]


def test_no_trial_begins_once_the_time_is_up() -> None:
    left = iter([False, True])
    trials = list(search(measured(lambda settings: 0.3), AXES, ALONE, lambda: next(left)))
    assert len(trials) == 2


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"threads": 2}, "threads"),
        ({"prefetch": 2}, "prefetch"),
        ({"read_threads": 8}, "read_threads"),
        ({"hw_load": 0.65}, "hw_load"),
        ({"resize_batch": 32}, "resize_batch"),
        ({"decode_on": "gpu"}, "decode_on"),
    ],
)
def test_what_is_given_is_not_tried(given: Settings, name: str) -> None:
    names = [axis for axis, _ in axes(LoaderConfig(**given), GPU, cores=16)]
    everything = [axis for axis, _ in axes(LoaderConfig(), GPU, cores=16)]
    assert name in everything
    assert names == [axis for axis in everything if axis != name]


def test_a_cpu_has_no_settings_of_a_gpu() -> None:
    assert [name for name, _ in AXES] == ["threads", "prefetch", "read_threads"]
