"""The loader's tuning: how far the settings that it takes are behind the best fixed ones."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benches.report import Report
from benches.shard_sets import describe as describe_set
from benches.shard_sets import shard_set
from benches.train import build
from dsanet.engine.errors import EngineError
from dsanet.engine.tuning.search import Settings, Trial, axes, best_of, describe
from dsanet.engine.tuning.trials import Trials
from dsanet.engine.tuning.tune import tune_loader
from pipelines.decode.decoder import usable_cores

STEPS = 200  # of the repeated split: an epoch this long never ends within a trial


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="shard set (default: one is made)")
    parser.add_argument("--model", help="default: dsa_i3d_r50 on a GPU, dsa_i3d_r18 on a CPU")
    parser.add_argument(
        "--rounds", type=int, default=3, help="times that each setting is measured afterwards (3)"
    )
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of train.py"
    )


def remeasure(
    measure: Callable[[Settings], Trial], tried: list[Settings], rounds: int
) -> list[tuple[Settings, float]]:
    """Median seconds of a step with each setting, measured in turn, the order reversed each time.

    Raises:
        EngineError: when none of them works.
    """
    distinct = [s for number, s in enumerate(tried) if s not in tried[:number]]
    seconds: list[list[float]] = [[] for _ in distinct]
    for number in range(rounds):
        order = list(range(len(distinct)))
        for index in order[::-1] if number % 2 else order:
            if (value := measure(distinct[index]).seconds) is not None:
                seconds[index].append(value)
    found = [(s, statistics.median(v)) for s, v in zip(distinct, seconds, strict=True) if v]
    if not found:
        raise EngineError("no setting of the loader works; see train.py's own error")
    return found


def fixed_settings(trials: list[Trial], tried: list[tuple[str, list[Any]]]) -> list[Settings]:
    """What the tuning has tried, and each single change that it can try, even if it ended early."""
    single = [{name: value} for name, values in tried for value in values]
    return [trial.settings for trial in trials] + single


def behind(medians: list[tuple[Settings, float]], taken: Settings) -> float:
    """By what share the taken settings are slower than the best ones; 0 where they are the best."""
    [own] = [seconds for settings, seconds in medians if settings == taken]
    return own / min(seconds for _, seconds in medians) - 1


def run(args: argparse.Namespace, report: Report) -> None:
    with shard_set(args.data) as data, TemporaryDirectory(prefix="dsanet-bench-") as scratch:
        training = build(args, data, Path(scratch), STEPS)
        facts: dict[str, Any] = {"case": "setting", "data": describe_set(data)}
        report.add(**facts, model=training.config.model, batch=training.state.layout.videos)
        given = training.config.loader
        try:
            done = tune_loader(training)
            training.replace_loaders(given)
            fixed = fixed_settings(done, axes(given, training.loader.spec, usable_cores()))
            medians = remeasure(Trials(training).measure, fixed, args.rounds)
        finally:
            training.close()
    taken = best_of(done).settings
    for settings, seconds in medians:
        report.add(case=describe(settings), ms_per_step=1000 * seconds, taken=settings == taken)
    report.add(case="taken / best", behind=behind(medians, taken))
