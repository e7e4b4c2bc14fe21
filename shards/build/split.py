"""Builds a split of a shard set; a killed build goes on from its last finished tar."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shards.build.missing import find_video_folder
from shards.build.plan import check_sources, check_split, fingerprint, plan_tars
from shards.build.pool import BuildContext, WorkerPool
from shards.build.state import BuildState, make_record, merge
from shards.errors import ShardError
from shards.format.manifest import read_set_classes
from shards.format.settings import ShardSettings, Source, Status


@dataclass
class Report:
    """The verdicts of a build on its sources.

    Attributes:
        folder: the folder of the split.
        verdicts: one JSON object for each source, of this task's share only.
        complete: whether all tars of the split are there, those of other tasks too.
        seconds: time that the build took.
        share: whether the build was one of several tasks.
    """

    folder: Path
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = True
    seconds: float = 0.0
    share: bool = False

    def with_status(self, status: Status) -> list[dict[str, Any]]:
        """Return the verdicts with this status."""
        return [verdict for verdict in self.verdicts if verdict["status"] == status]

    @property
    def ok(self) -> int:
        """Number of samples written."""
        return len(self.with_status("ok"))

    @property
    def refused(self) -> list[dict[str, Any]]:
        """Verdicts of all sources that did not become samples: refused, missing or deferred."""
        return [verdict for verdict in self.verdicts if verdict["status"] != "ok"]

    @property
    def partly_unlabelled(self) -> list[dict[str, Any]]:
        """Verdicts of the samples without a label, where others have one.

        A list without any label is a test set, and nothing is wrong with it.
        """
        unlabelled = [verdict for verdict in self.with_status("ok") if not verdict["labels"]]
        return unlabelled if len(unlabelled) < self.ok else []

    @property
    def kinds(self) -> Counter[str]:
        """Number of sources that did not become samples, by kind."""
        return Counter(verdict["kind"] for verdict in self.refused)

    @property
    def exit_code(self) -> int:
        """0 if every source became a sample, 3 if some did not, 1 if none of the split did."""
        if self.verdicts and not self.ok and not self.share:
            return 1
        return 3 if self.refused else 0


@dataclass(frozen=True)
class Watcher:
    """Callbacks of a build: `begin(tars, sources)` once, then `verdict(...)` for every source."""

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
    """Write `sources` as the split `out`/`split` of a shard set.

    task: (I, N) writes share I of N of the tars. The task that writes the last missing tar also
    writes the index and the manifest.

    Finished tars stay when a build ends early; the same call then goes on from there.

    Raises:
        ShardError: for an invalid list, a folder that was begun with other settings, or an
            output that cannot be written.
    """
    started = time.monotonic()
    check_sources(sources, classes)
    _check_classes(Path(out), check_split(split), classes)
    root = find_video_folder(sources)
    plans = plan_tars(sources, split, settings)
    identity = fingerprint(sources, settings, classes)
    record = make_record(split, classes, settings, plans, identity)
    state = BuildState(Path(out) / split)
    state.open(record)

    def on_verdict(verdict: dict[str, Any]) -> None:
        if verdict["status"] == "missing" and not root.is_dir():
            raise ShardError(f"{root}: the folder of videos is gone; restore it and run again")
        watcher.verdict(verdict)

    with state.locked(f"task-{task[0]}-of-{task[1]}"):
        share = plans[task[0] :: task[1]]
        todo = [plan for plan in share if not state.is_up_to_date(plan)]
        watcher.begin(len(todo), sum(len(plan.sources) for plan in todo))
        for plan in todo:
            state.discard_tar(plan.name)
        context = BuildContext(state.folder, settings, record, on_verdict, state.save_tar)
        WorkerPool(context).run(todo)
        complete = state.is_complete(plans)
        if complete:
            merge(state.folder)
        verdicts = [verdict for plan in share for verdict in state.verdicts(plan.name)]
    seconds = time.monotonic() - started
    return Report(state.folder, verdicts, complete, seconds, share=task[1] > 1)


def _check_classes(out: Path, split: str, classes: Sequence[str]) -> None:
    other, names = read_set_classes(out, except_split=split)
    if names and names != tuple(classes):
        raise ShardError(
            f"{out}: split {other} has other classes ({len(names)}, {split} has {len(classes)}), "
            "so that a label would mean different classes; give both the same --classes, after "
            f"deleting {out / other} if its classes are wrong, or give another --out"
        )
