"""The tuning of the loader at the start of a run."""

from __future__ import annotations

import json
from dataclasses import replace

from dsanet.engine.launch.first_process import on_first_process
from dsanet.engine.setup import Training
from dsanet.engine.step import trial
from dsanet.engine.tuning.cache import key_of, read_result, write_result
from dsanet.engine.tuning.search import Trial, axes, best_of, describe, search, table
from dsanet.engine.tuning.trials import Trials, deadline
from pipelines.decode.decoder import usable_cores

LIMIT = 20.0  # seconds after which no further trial begins; one takes a few


def is_wanted(training: Training) -> bool:
    """Whether `loader.tune` asks for tuning."""
    mode = training.config.loader.tune
    return mode == "again" or (mode == "auto" and training.world.device.type == "cuda")


def use_earlier_result(training: Training) -> bool:
    """Take the settings that an earlier start has found, if any; every process must call it."""
    given = training.config.loader
    if not is_wanted(training) or given.tune == "again":
        return False

    def read() -> str:
        found = read_result(key_of(training), given, training.folder.path, training.console.print)
        return json.dumps([found[0], str(found[1])]) if found else ""

    found = on_first_process(training.world, read)
    if not found:
        return False
    settings, path = json.loads(found)
    training.console.print(f"loader tuning: {describe(settings)}, from {path}")
    if settings:
        training.replace_loaders(replace(given, **settings))
    return True


def tune_loader(training: Training) -> list[Trial]:
    """Try settings of the loader beside the network and take the fastest; returns the trials.

    It takes about half a minute at most. The run is not changed: the samples do not depend on these
    settings, gradients are dropped and buffers restored. Every process must call it, and rank 0
    decides; a step takes as long as on the slowest process.
    """
    world, console, given = training.world, training.console, training.config.loader
    trials, times = Trials(training), deadline(world, LIMIT)
    next(times)  # starts the clock
    with trial(training):
        alone = trials.alone(training.first_batch())
        spec = training.loader.spec
        training.loader.close()  # its threads and its memory would disturb the trials
        tried = axes(given, spec, usable_cores())
        done = list(search(trials.measure, tried, alone, lambda: next(times)))
    taken = best_of(done)
    for line in table(done, alone):
        console.print(line)
    if world.main:
        write_result(key_of(training), done, taken, training.folder.path, console.print)
    training.replace_loaders(replace(given, **taken.settings))
    return done
