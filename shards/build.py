"""Build a split of a shard set: restartable at any moment, the same bytes every time."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av

from shards.errors import ShardError
from shards.index import write_split
from shards.manifest import FORMAT_VERSION, write_json
from shards.plan import TarPlan, check_sources, check_split, fingerprint, plan_tars
from shards.pool import Crew, Pool
from shards.settings import ShardSettings, Source

STATE = ".build"
UNSETTLED = ("missing", "deferred")


@dataclass
class Report:
    """What became of every source of a build: verdicts as JSON objects."""

    folder: Path
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = True
    seconds: float = 0.0

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
        """How many sources were refused, by kind."""
        return Counter(verdict["kind"] for verdict in self.refused)

    @property
    def exit_code(self) -> int:
        """0 when all is well, 3 when some inputs were bad, 1 when none was good."""
        if not self.ok:
            return 1
        return 3 if self.refused else 0


@dataclass(frozen=True)
class Watcher:
    """Called while a build goes on: `begin(tars, sources)`, then `verdict` for each source."""

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
    """Write `sources` as `out`/`split`, or as much of it as `task` (I, N) says; finish it if all
    tars are there.

    Raises ShardError for a bad list, a folder begun with other settings, or an output that cannot
    be written; finished tars stay and a second call goes on.
    """
    started = time.monotonic()
    check_sources(sources, classes)
    _check_present(sources)
    folder = Path(out) / check_split(split)
    state = _make_folders(folder)
    with _locked(state / f"task-{task[0]}-of-{task[1]}.lock", folder):
        record = _record(split, classes, settings)
        _same_plan(state, sources, settings, classes, record)
        plans = plan_tars(sources, split, settings)
        mine = plans[task[0] :: task[1]]
        todo = [plan for plan in mine if _unfinished(folder, plan)]
        watcher.begin(len(todo), sum(len(plan.sources) for plan in todo))
        crew = Crew(folder, settings, list(classes), record, watcher.verdict, _keeper(state))
        _remove_parts(folder, todo)
        Pool(crew).run(todo)
        complete = all(_state_path(state, plan).is_file() for plan in plans)
        if complete:
            finish_split(folder)
        verdicts = [v for plan in mine for v in _verdicts(state, plan)]
    return Report(folder, verdicts, complete, time.monotonic() - started)


def finish_split(folder: Path) -> dict[str, Any]:
    """Write manifest and index of a folder whose tars are all there; returns the manifest.

    Raises ShardError naming the tars that are missing.
    """
    state = folder / STATE
    plan = _read_plan(state)
    names = [f"{plan['split']}-{n:06d}.tar" for n in range(plan["tars"])]
    absent = [n for n in names if not (folder / n).is_file() or not (state / f"{n}.json").is_file()]
    if absent:
        raise ShardError(
            f"{len(absent)} of {len(names)} tars of {folder} are not finished ({absent[0]} is the "
            "first): run the tasks that write them, then merge again"
        )
    hashes = {name: json.loads((state / f"{name}.json").read_text()) for name in names}
    return write_split(folder, names, {n: (s["sha256"], s["size"]) for n, s in hashes.items()})


def _check_present(sources: Sequence[Source]) -> None:
    root = Path(os.path.commonpath([source.path.absolute().parent for source in sources]))
    if not root.is_dir():
        raise ShardError(
            f"the folder of videos {root} does not exist: mount it or correct the path"
        )
    if not any(source.path.exists() for source in sources):
        raise ShardError(f"none of the {len(sources)} videos of the list is in {root}")


def _make_folders(folder: Path) -> Path:
    state = folder / STATE
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ShardError(f"cannot write to {folder}: {error.strerror}") from None
    return state


@contextmanager
def _locked(path: Path, folder: Path) -> Iterator[None]:
    try:
        file = open(path, "w")  # noqa: SIM115  (held open for the lock's life)
    except OSError as error:
        raise ShardError(f"cannot write to {folder}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ShardError(f"another process is building {folder}: wait for it") from None
        yield


def _record(split: str, classes: Sequence[str], settings: ShardSettings) -> dict[str, Any]:
    """What each tar says of the set it belongs to, enough to rebuild every other file."""
    versions = {name: ".".join(map(str, v)) for name, v in sorted(av.library_versions.items())}
    return {
        "format": FORMAT_VERSION,
        "split": split,
        "classes": list(classes),
        "settings": settings.recorded(),
        "versions": {"av": av.__version__, **versions},
    }


def _same_plan(
    state: Path,
    sources: Sequence[Source],
    settings: ShardSettings,
    classes: Sequence[str],
    record: dict[str, Any],
) -> None:
    """Write the plan, or find the one that is there to be the same."""
    tars = len(plan_tars(sources, "x", settings))
    plan = {"fingerprint": fingerprint(sources, settings, classes), "tars": tars, **record}
    path = state / "plan.json"
    if not path.exists():
        write_json(path, plan)
        return
    there = _read_plan(state)
    if there["fingerprint"] == plan["fingerprint"] and there["versions"] == plan["versions"]:
        return
    changed = [
        f"{name} was {value}"
        for name, value in there["settings"].items()
        if record["settings"].get(name) != value
    ] or (["other FFmpeg libraries"] if there["versions"] != plan["versions"] else ["another list"])
    raise ShardError(
        f"{state.parent} was begun differently ({', '.join(changed)}): give another --out, or "
        "delete that folder to start over"
    )


def _read_plan(state: Path) -> dict[str, Any]:
    try:
        plan: dict[str, Any] = json.loads((state / "plan.json").read_text())
    except (OSError, ValueError):
        raise ShardError(f"{state.parent} holds no begun shard set: run tools/shard.py") from None
    return plan


def _state_path(state: Path, plan: TarPlan) -> Path:
    return state / f"{plan.name}.json"


def _verdicts(state: Path, plan: TarPlan) -> list[dict[str, Any]]:
    found = json.loads(_state_path(state, plan).read_text())["verdicts"]
    return [verdict | {"tar": plan.name} for verdict in found]


def _unfinished(folder: Path, plan: TarPlan) -> bool:
    """Whether a tar must be written: not there yet, or a source without verdict may do now."""
    state = folder / STATE
    if not _state_path(state, plan).is_file() or not (folder / plan.name).is_file():
        return True
    paths = {source.key: source.path for source in plan.sources}
    for verdict in _verdicts(state, plan):
        if verdict["status"] == "deferred":
            return True
        if verdict["status"] == "missing" and paths[verdict["key"]].exists():
            return True
    return False


def _remove_parts(folder: Path, plans: Sequence[TarPlan]) -> None:
    for plan in plans:
        _state_path(folder / STATE, plan).unlink(missing_ok=True)
        (folder / f".{plan.name}.part").unlink(missing_ok=True)


def _keeper(state: Path) -> Callable[[TarPlan, dict[str, Any]], None]:
    def keep(plan: TarPlan, done: dict[str, Any]) -> None:
        write_json(_state_path(state, plan), done)

    return keep
