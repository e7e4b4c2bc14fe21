"""Which settings are tried, in which order, and which one is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pipelines import LoaderConfig
from pipelines.decode.graph import GraphSpec

Settings = dict[str, Any]  # changes of LoaderConfig
# A step this much longer than with data in memory waits for nothing that settings could change, and
# a shorter difference between two settings is noise.
NOISE = 0.02


@dataclass(frozen=True)
class Trial:
    """A trial of settings.

    Attributes:
        settings: what differs from the given settings.
        seconds: length of a step, None where it failed.
        failure: why it failed.
    """

    settings: Settings = field(default_factory=dict)
    seconds: float | None = None
    failure: str = ""


def axes(config: LoaderConfig, spec: GraphSpec, cores: int) -> list[tuple[str, list[Any]]]:
    """Name and values to try of each setting that `config` leaves open, the most promising first.

    spec: the decoding graph that `config` gives; cores: of this process.
    """
    threads = {spec.threads * 2, max(spec.threads // 2, 1)} - {spec.threads}
    found: list[tuple[str, bool, list[Any]]] = [
        ("decode_on", config.decode_on == "auto" and spec.mixed, ["cpu"]),
        (
            "threads",
            config.threads == 0,
            sorted((n for n in threads if n <= max(4, 2 * cores)), reverse=True),
        ),
        ("hw_load", config.hw_load is None and spec.mixed and spec.input == "jpeg", [1.0]),
        ("prefetch", config.prefetch is None, [4]),
        ("read_threads", config.read_threads is None, [16]),
        ("resize_batch", config.resize_batch is None and spec.mixed, [128]),
    ]
    return [(name, values) for name, is_open, values in found if is_open]


def search(
    measure: Callable[[Settings], Trial],
    tried: list[tuple[str, list[Any]]],
    alone: float,
    time_is_up: Callable[[], bool],
) -> Iterator[Trial]:
    """Yield the trials: of the given settings, then of one change of the best so far at a time.

    It ends once the best step is as short as `alone`, that of a network with its data in memory, or
    the time is up. If another setting seems better, the given ones are tried once more, as the
    first trial of all meets a cold machine.
    """
    best = measure({})
    yield best
    for name, value in ((name, value) for name, values in tried for value in values):
        if _is_short(best, alone) or time_is_up():
            break
        trial = measure({**best.settings, name: value})
        yield trial
        if _is_faster(trial, best):
            best = trial
    if best.settings and not time_is_up():
        yield measure({})


def best_of(trials: list[Trial]) -> Trial:
    """The trial with the shortest step, an earlier one where a later one is faster by noise."""
    given = [trial for trial in trials if not trial.settings and trial.seconds is not None]
    best = min(given, key=lambda trial: trial.seconds or 0.0, default=trials[0])
    for trial in trials:
        if _is_faster(trial, best):
            best = trial
    return best


def _is_short(trial: Trial, alone: float) -> bool:
    return trial.seconds is not None and trial.seconds <= alone * (1 + NOISE)


def _is_faster(trial: Trial, other: Trial) -> bool:
    if trial.seconds is None:
        return False
    return other.seconds is None or trial.seconds < other.seconds * (1 - NOISE)


def table(trials: list[Trial], alone: float) -> list[str]:
    """The trials as lines of text, the one that is taken marked."""
    taken = best_of(trials)
    lines = [f"loader tuning: a step takes {1000 * alone:.1f} ms with its data in memory"]
    for trial in trials:
        result = trial.failure or f"{1000 * (trial.seconds or 0):.1f} ms"
        mark = "  <- taken" if trial is taken else ""
        lines.append(f"  {describe(trial.settings)}: {result}{mark}")
    return lines


def describe(settings: Settings) -> str:
    """Settings as text, as on the command line."""
    words = [f"--loader.{name} {value}" for name, value in settings.items()]
    return " ".join(words) or "as given"
