"""Build a split of a shard set: restartable at any moment, the same bytes every time."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shards.build.plan import check_sources, check_split, fingerprint, plan_tars
from shards.build.pool import Crew, Pool
from shards.build.state import State, make_record, merge
from shards.errors import ShardError
from shards.format.manifest import known_classes
from shards.format.settings import ShardSettings, Source


@dataclass
class Report:
    """What became of the sources of a build (of one task's share): verdicts as JSON objects."""

    folder: Path
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = True
    seconds: float = 0.0
    share: bool = False  # of one task among several

    def of(self, status: str) -> list[dict[str, Any]]:
        """Verdicts with this status: ok, refused, missing or deferred."""
        return [verdict for verdict in self.verdicts if verdict["status"] == status]

    @property
    def ok(self) -> int:
        """Samples written."""
        return len(self.of("ok"))

    @property
    def refused(self) -> list[dict[str, Any]]:
        """Verdicts of the sources that did not become samples, for whatever reason."""
        return [verdict for verdict in self.verdicts if verdict["status"] != "ok"]

    @property
    def kinds(self) -> Counter[str]:
        """How many sources did not become samples, by kind."""
        return Counter(verdict["kind"] for verdict in self.refused)

    @property
    def exit_code(self) -> int:
        """0 when all is well, 3 when some inputs were bad, 1 when none of the split was good."""
        if self.verdicts and not self.ok and not self.share:
            return 1
        return 3 if self.refused else 0


@dataclass(frozen=True)
class Watcher:
    """Told of a build as it goes on: `begin(tars, sources)` first, then every verdict."""

    begin: Callable[[int, int], None] = lambda tars, sources: None
    verdict: Callable[[dict[str, Any]], None] = lambda verdict: None


def build_split(
    sources: Sequence[Source],
    out: Path,
    split: str,
    classes: Sequence[str],
    settings: ShardSettings = ShardSettings(),  # noqa: B008  (frozen)
    *,
    task: tuple[int, int] = (0, 1),
    watcher: Watcher = Watcher(),
) -> Report:
    """Write `sources` as `out`/`split`, or the share of it that task (I, N) has; finish the split
    when all its tars are there.

    Raises ShardError for a bad list, a folder begun with other settings, or an output that cannot
    be written; finished tars stay, and a second call goes on.
    """
    started = time.monotonic()
    check_sources(sources, classes)
    _check_classes(Path(out), check_split(split), classes)
    root = _check_present(sources)
    plans = plan_tars(sources, split, settings)
    known = fingerprint(sources, settings, classes)
    record = make_record(split, classes, settings, plans, known)
    state = State(Path(out) / split)
    state.open(record)

    def heard(verdict: dict[str, Any]) -> None:
        if verdict["status"] == "missing" and not root.is_dir():
            raise ShardError(f"the folder of videos {root} is gone: bring it back and run again")
        watcher.verdict(verdict)

    with state.locked(f"task-{task[0]}-of-{task[1]}"):
        mine = plans[task[0] :: task[1]]
        todo = [plan for plan in mine if not state.is_settled(plan)]
        watcher.begin(len(todo), sum(len(plan.sources) for plan in todo))
        for plan in todo:
            state.forget(plan.name)
        Pool(Crew(state.folder, settings, record, heard, state.keep)).run(todo)
        complete = state.is_complete(plans)
        if complete:
            merge(state.folder)
        verdicts = [verdict for plan in mine for verdict in state.verdicts(plan.name)]
    seconds = time.monotonic() - started
    return Report(state.folder, verdicts, complete, seconds, share=task[1] > 1)


def _check_classes(out: Path, split: str, classes: Sequence[str]) -> None:
    others = known_classes(out, but=split)
    if others and others != tuple(classes):
        raise ShardError(
            f"the classes differ from those of the other splits in {out}, so labels would not mean "
            "the same: give the same --classes, or another --out"
        )


def _check_present(sources: Sequence[Source]) -> Path:
    """The folder that holds all the sources."""
    root = Path(os.path.commonpath([source.path.absolute().parent for source in sources]))
    if not root.is_dir():
        raise ShardError(f"the folder of videos {root} does not exist: mount it, or correct it")
    if not any(source.path.exists() for source in sources):
        raise ShardError(f"none of the {len(sources)} videos of the list is in {root}")
    return root
