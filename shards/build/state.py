"""What a build remembers on disk between runs: the plan, and each finished tar's verdicts."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from av import __version__ as av_version
from av import library_versions

from shards.build.plan import TarPlan
from shards.build.worker import sha256
from shards.errors import ShardError
from shards.format.manifest import FORMAT_VERSION, MANIFEST, write_json
from shards.format.settings import ShardSettings
from shards.format.side_files import scan_tar, write_split

FOLDER = ".build"
RECORDED = {"split", "settings", "versions", "fingerprint", "tars"}


def make_record(
    split: str,
    classes: Sequence[str],
    settings: ShardSettings,
    plans: Sequence[TarPlan],
    fingerprint: str,
) -> dict[str, Any]:
    """What each tar says of the set it belongs to: enough to rebuild every other file."""
    versions = {name: ".".join(map(str, v)) for name, v in sorted(library_versions.items())}
    return {
        "format": FORMAT_VERSION,
        "split": split,
        "classes": list(classes),
        "settings": settings.recorded(),
        "versions": {"av": av_version, **versions},
        "fingerprint": fingerprint,
        "tars": len(plans),
    }


class State:
    """The hidden folder of a split that is being built. Raises ShardError if it cannot be used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / FOLDER

    def open(self, record: Mapping[str, Any]) -> None:
        """Write the record of this build, or find the one that is there to be the same."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ShardError(f"cannot write to {self.folder}: {error.strerror}") from None
        if not (self.home / "plan.json").exists():
            own = self.home / f"plan.{socket.gethostname()}.{os.getpid()}.json"
            write_json(own, record)
            own.replace(self.home / "plan.json")  # tasks that begin together do not meet
        elif changed := _changes(self.record(), record):
            raise ShardError(
                f"{self.folder} was begun differently ({', '.join(changed)}): give another --out, "
                "or delete that folder to start over"
            )

    def record(self) -> dict[str, Any]:
        """The record of the build that was begun here."""
        try:
            found: dict[str, Any] = json.loads((self.home / "plan.json").read_text())
        except OSError:
            raise ShardError(f"{self.folder} holds no begun split: run tools/shard.py") from None
        except ValueError:
            found = {}
        if not isinstance(found, dict) or not found.keys() >= RECORDED:
            raise ShardError(
                f"{self.home / 'plan.json'} is damaged: delete it and run the same command"
            )
        return found

    @contextmanager
    def locked(self, name: str, *, wait: bool = False) -> Iterator[None]:
        """Keep a second process out, or waiting, for as long as this one lives."""
        try:
            file = open(self.home / f"{name}.lock", "w")  # noqa: SIM115  (held for the lock)
        except OSError as error:
            raise ShardError(f"cannot write to {self.folder}: {error.strerror}") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise ShardError(f"another process is building {self.folder}: wait") from None
            except OSError as error:
                text = f"{self.folder}: its file system has no locks ({error.strerror})"
                warnings.warn(f"{text}; see that no second build runs there", stacklevel=2)
            yield

    def _path(self, tar: str) -> Path:
        return self.home / f"{tar}.json"

    def keep(self, tar: str, done: Mapping[str, Any]) -> None:
        """Remember a finished tar: SHA-256, size and verdicts."""
        write_json(self._path(tar), done)

    def forget(self, tar: str) -> None:
        """A tar is to be written again: neither it nor the manifest counts as finished."""
        for path in (self.folder / MANIFEST, self._path(tar), self.folder / f".{tar}.part"):
            path.unlink(missing_ok=True)

    def is_finished(self, tar: str) -> bool:
        """Whether the tar is in its place, as long as it was, and remembered."""
        try:
            done = json.loads(self._path(tar).read_text())
            return bool(done["verdicts"]) and (self.folder / tar).stat().st_size == done["size"]
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def verdicts(self, tar: str) -> list[dict[str, Any]]:
        """The verdicts of a finished tar."""
        found = json.loads(self._path(tar).read_text())["verdicts"]
        return [verdict | {"tar": tar} for verdict in found]

    def is_settled(self, plan: TarPlan) -> bool:
        """Whether the tar is finished and no source of it may fare better now."""
        if not self.is_finished(plan.name):
            return False
        paths = {source.key: source.path for source in plan.sources}
        return not any(
            v["status"] == "deferred" or (v["status"] == "missing" and paths[v["key"]].exists())
            for v in self.verdicts(plan.name)
        )

    def is_complete(self, plans: Sequence[TarPlan]) -> bool:
        """Whether every tar of the split is finished, by whichever task."""
        return all(self.is_finished(plan.name) for plan in plans)


def _changes(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What differs between two records, in words; [] if nothing does."""
    old, new = there["settings"], wanted["settings"]
    changed = [f"{name} was {old.get(name)}" for name in new if old.get(name) != new[name]]
    if there["versions"] != wanted["versions"]:
        changed.append(f"av was {there['versions']['av']}, or built with other FFmpeg libraries")
    if not changed and there["fingerprint"] != wanted["fingerprint"]:
        changed.append("another list or other classes")
    return changed


def merge(folder: Path) -> dict[str, Any]:
    """Write manifest and index of a split whose tars are all there; returns the manifest.

    Raises ShardError naming the tars that are missing.
    """
    state = State(folder)
    record = state.record()
    names = [f"{record['split']}-{n:06d}.tar" for n in range(record["tars"])]
    absent = [name for name in names if not state.is_finished(name)]
    if absent:
        raise ShardError(
            f"{len(absent)} of {len(names)} tars of {folder} are not finished, {absent[0]} the "
            "first: run the tasks that write them, then merge again"
        )
    with state.locked("merge", wait=True):  # the last two tasks of an array may end together
        done = {name: json.loads((state.home / f"{name}.json").read_text()) for name in names}
        return write_split(folder, names, {n: (d["sha256"], d["size"]) for n, d in done.items()})


def reindex(folder: Path) -> dict[str, Any]:
    """Rebuild every side file of a split from its tars alone; returns the manifest.

    Raises ShardError for a damaged tar, or one that is missing.
    """
    found = sorted(folder.glob("*.tar"))
    if not found:
        raise ShardError(f"{folder} holds no tar to index")
    record = scan_tar(found[0]).record
    names = [f"{record['split']}-{n:06d}.tar" for n in range(record["tars"])]
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise ShardError(f"{folder}: {absent[0]} is missing ({len(absent)} of {len(names)} tars)")
    state, hashes = State(folder), {}
    state.open({name: record[name] for name in record if name not in ("verdicts", "number")})
    for name in names:
        path = folder / name
        hashes[name] = (sha256(path), path.stat().st_size)
        done = {"sha256": hashes[name][0], "size": hashes[name][1]}
        state.keep(name, done | {"verdicts": scan_tar(path).record["verdicts"]})
    return write_split(folder, names, hashes)
