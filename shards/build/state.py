"""The state of a build on disk: its record, and size, hash and verdicts of each finished tar."""

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

from dsanet.errors import printable
from shards.build.plan import TarPlan
from shards.build.upgrade import upgrade_tar
from shards.errors import ShardError
from shards.format.files import create, read_regular, sha256
from shards.format.manifest import FORMAT_VERSION, MANIFEST, write_json
from shards.format.settings import ShardSettings
from shards.format.side_files import scan_tar, write_split
from shards.format.tar_schema import check_finished, check_plan
from shards.format.tars import MAX_SMALL

STATE_FOLDER = ".build"


def make_record(
    split: str,
    classes: Sequence[str],
    settings: ShardSettings,
    plans: Sequence[TarPlan],
    fingerprint: str,
) -> dict[str, Any]:
    """Return the record that every tar carries: all that a reindex needs besides the samples."""
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


class BuildState:
    """The folder `.build` of a split. The methods raise ShardError if it cannot be used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state_folder = folder / STATE_FOLDER

    def open(self, record: Mapping[str, Any]) -> None:
        """Write the record of this build, or check that the existing one is the same."""
        try:
            self.state_folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ShardError(f"cannot write to {self.folder}: {error.strerror}") from None
        if not (self.state_folder / "plan.json").exists():
            # A name of its own: tasks of an array may begin at the same time.
            own = self.state_folder / f"plan.{socket.gethostname()}.{os.getpid()}.json"
            write_json(own, record)
            own.replace(self.state_folder / "plan.json")
        elif changes := _describe_changes(self.read_record(), record):
            raise ShardError(
                f"{self.folder}: this split was begun differently ({', '.join(changes)}); give "
                "another --out, or delete that folder to start over"
            )

    def read_record(self) -> dict[str, Any]:
        """Return the record of the build that was begun here."""
        path = self.state_folder / "plan.json"
        try:
            record: dict[str, Any] = json.loads(read_regular(path, MAX_SMALL))
            check_plan(record)
        except OSError:
            raise ShardError(
                f"{self.folder}: no build was begun here; run tools/shard.py"
            ) from None
        except (ValueError, RecursionError):
            raise ShardError(f"{path} is damaged; delete it and run the same command") from None
        return record

    @contextmanager
    def locked(self, name: str, *, wait: bool = False) -> Iterator[None]:
        """Hold a lock while the block runs; a second process fails, or waits for it with `wait`."""
        try:
            file = create(self.state_folder / f"{name}.lock")
        except OSError as error:
            raise ShardError(f"cannot write to {self.folder}: {error.strerror}") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise ShardError(
                    f"{self.folder}: another process is building this split; wait for it"
                ) from None
            except OSError as error:
                text = printable(f"{self.folder}: the file system has no locks ({error.strerror})")
                warnings.warn(f"{text}; run only one build there at a time", stacklevel=2)
            yield

    def _path(self, tar: str) -> Path:
        return self.state_folder / f"{tar}.json"

    def _saved(self, tar: str) -> dict[str, Any]:
        saved: dict[str, Any] = json.loads(read_regular(self._path(tar), MAX_SMALL))
        return saved

    def save_tar(self, tar: str, finished: Mapping[str, Any]) -> None:
        """Save SHA-256, size and verdicts of a finished tar."""
        write_json(self._path(tar), finished)

    def discard_tar(self, tar: str) -> None:
        """Mark a tar, and with it the whole split, as unfinished."""
        for path in (self.folder / MANIFEST, self._path(tar), self.folder / f".{tar}.part"):
            path.unlink(missing_ok=True)

    def is_finished(self, tar: str) -> bool:
        """Whether the tar is complete: saved here, and of that size in the split's folder."""
        try:
            saved = self._saved(tar)
            check_finished(saved)
            return bool(saved["verdicts"]) and (self.folder / tar).stat().st_size == saved["size"]
        except (OSError, ValueError, RecursionError):
            return False

    def verdicts(self, tar: str) -> list[dict[str, Any]]:
        """Return the verdicts of a finished tar."""
        saved = self._saved(tar)
        return [verdict | {"tar": tar} for verdict in saved["verdicts"]]

    def hash_and_size(self, tar: str) -> tuple[str, int]:
        """Return SHA-256 and size (bytes) of a finished tar."""
        saved = self._saved(tar)
        return saved["sha256"], saved["size"]

    def is_up_to_date(self, plan: TarPlan) -> bool:
        """Whether the tar is finished and none of its sources is worth a second try."""
        if not self.is_finished(plan.name):
            return False
        paths = {source.key: source.path for source in plan.sources}
        return not any(
            verdict["status"] == "deferred"
            or (verdict["status"] == "missing" and paths[verdict["key"]].exists())
            for verdict in self.verdicts(plan.name)
        )

    def is_complete(self, plans: Sequence[TarPlan]) -> bool:
        """Whether every tar of the split is finished, those of other tasks too."""
        return all(self.is_finished(plan.name) for plan in plans)


def _describe_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say what differs between two records; [] if nothing does."""
    before, now = old["settings"], new["settings"]
    changes = [f"{name} was {before.get(name)}" for name in now if before.get(name) != now[name]]
    if old["versions"] != new["versions"]:
        changes.append(f"av was {old['versions']['av']}, or built with other FFmpeg libraries")
    if not changes and old["fingerprint"] != new["fingerprint"]:
        changes.append("another list or other classes")
    return changes


def merge(folder: Path) -> dict[str, Any]:
    """Write index and manifest of a split whose tars are all finished; returns the manifest.

    Raises ShardError if some tars are not finished.
    """
    state = BuildState(folder)
    record = state.read_record()
    names = _tar_names(record)
    unfinished = [name for name in names if not state.is_finished(name)]
    if unfinished:
        raise ShardError(
            f"{folder}: {len(unfinished)} of {len(names)} tars are not finished, the first is "
            f"{unfinished[0]}; run the tasks that write them, then merge again"
        )
    with state.locked("merge", wait=True):  # the last two tasks of an array may end together
        return write_split(folder, names, {name: state.hash_and_size(name) for name in names})


def _tar_names(record: Mapping[str, Any]) -> list[str]:
    return [f"{record['split']}-{number:06d}.tar" for number in range(record["tars"])]


def reindex(folder: Path, *, upgrade: bool = False) -> dict[str, Any]:
    """Rebuild every side file of a split from its tars alone; returns the manifest.

    upgrade: replace tars of format version 1 by tars of version 2 first.

    Raises ShardError if a tar is damaged or missing.
    """
    tars = sorted(folder.glob("*.tar"))
    if not tars:
        raise ShardError(f"{folder} contains no tar to index")
    record = scan_tar(tars[0]).record
    names = _tar_names(record)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ShardError(
            f"{folder}: {len(missing)} of {len(names)} tars are missing, the first is {missing[0]}"
        )
    state, hashes = BuildState(folder), {}
    state.open({name: record[name] for name in record if name not in ("verdicts", "number")})
    for name in names:
        path = folder / name
        if upgrade:
            upgrade_tar(path)
        hashes[name] = (sha256(path), path.stat().st_size)
        finished = {"sha256": hashes[name][0], "size": hashes[name][1]}
        state.save_tar(name, finished | {"verdicts": scan_tar(path).record["verdicts"]})
    return write_split(folder, names, hashes)
