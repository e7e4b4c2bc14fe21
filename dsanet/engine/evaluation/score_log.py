"""Scores are saved as they are made, so that an interrupted evaluation can continue.

The folder `OUT/partial/` holds `settings.json`, with which the scores were made, and one file per
process, to which a record is appended for each video. A record ends with its CRC-32: one that a
crash truncated or damaged is ignored, and its video is scored again.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dsanet.engine.errors import EngineError
from dsanet.engine.evaluation.scoring import ScoreTable
from dsanet.engine.launch.distributed import World
from dsanet.engine.launch.signals import Interrupted, Signals, Stop
from dsanet.engine.set_aside import is_there, set_aside
from dsanet.errors import printable
from shards.format.files import write_atomic

FOLDER = "partial"
SETTINGS = "settings.json"
SCORES = "scores-*.bin"


class ScoreLog:
    """The log of one evaluation, which may have any number of processes.

    Two evaluations must not write to the same folder at the same time.

    out: folder of the evaluation. classes: length of a row of scores. inputs: V, the length of a
    row of ranks.
    """

    def __init__(
        self, out: Path, classes: int, inputs: int, world: World, signals: Signals | None = None
    ) -> None:
        self.folder = out / FOLDER
        self.world = world
        self.signals = signals or Signals()
        self.dtype = _record_dtype(classes, inputs)
        self.file = self.folder / f"scores-{world.rank:05d}.bin"

    def open(
        self, settings: dict[str, Any], report: Callable[[str], None], videos: int | None = None
    ) -> ScoreTable:
        """Read the scores of an earlier start with the same settings; every process must call it.

        Scores made with other settings are deleted, damaged files are renamed, and a warning is
        reported.

        videos: length of the split; None does not check the ids in the log.

        Raises:
            EngineError: when the folder can't be written.
        """
        with self._named_errors():
            if self.world.main:
                self._set_aside_others(report)
            data = (
                self._read_or_reset(settings, report, videos).tobytes() if self.world.main else b""
            )
        records = np.frombuffer(self.world.broadcast(data), self.dtype)
        with self._named_errors():
            self._truncate_to_whole_records()
        _, first = np.unique(records["id"], return_index=True)
        unique = records[first]
        return ScoreTable(unique["id"], unique["label"], unique["scores"], unique["ranks"])

    def append(self, table: ScoreTable) -> None:
        """Append the scores of a batch, without its rows of id -1.

        Raises:
            EngineError: when they can't be written.
        """
        valid = table.ids >= 0
        records = np.zeros(int(valid.sum()), self.dtype)
        records["id"], records["label"] = table.ids[valid], table.labels[valid]
        records["scores"], records["ranks"] = table.scores[valid], table.ranks[valid]
        records["crc"] = _checksums(records)
        with self._named_errors(), self.file.open("ab", buffering=0) as file:
            file.write(records.tobytes())

    @property
    def stop_requested(self) -> bool:
        """Whether this process has received a signal to stop."""
        return bool(self.signals.stop)

    def raise_if_stopped(self) -> None:
        """End the evaluation if any process has received a signal; every process must call it.

        Raises:
            Interrupted: on all processes alike.
        """
        stops = self.world.gather(np.array([self.signals.stop], np.int64))
        if stop := Stop(max(int(s[0]) for s in stops)):
            raise Interrupted(stop)

    def remove(self) -> None:
        """Delete the log, once its scores are in scores.npz."""
        with contextlib.suppress(OSError):
            self._clear()

    def _set_aside_others(self, report: Callable[[str], None]) -> None:
        """Rename what has the name of a part of the log and is no regular file."""
        if self.folder.exists() and not self.folder.is_dir():
            set_aside(self.folder, report)
        for path in (self.folder / SETTINGS, *self.folder.glob(SCORES)):
            is_there(path, report)

    def _read_or_reset(
        self, settings: dict[str, Any], report: Callable[[str], None], videos: int | None
    ) -> np.ndarray:
        path = self.folder / SETTINGS
        if path.is_file():
            earlier, current = _read_json(path), json.loads(json.dumps(settings))
            if earlier == current:
                return self._read_records(report, videos)
            if earlier is None:
                set_aside(path, report, "all videos are scored again")
            else:
                difference = first_difference(earlier, current)
                reason = f"{self.folder} has scores of other settings: {difference}"
                report(f"WARNING: all videos are scored again, {reason}")
        self._clear()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(settings, indent=1).encode())
        return np.zeros(0, self.dtype)

    def _read_records(self, report: Callable[[str], None], videos: int | None) -> np.ndarray:
        """The intact records of all files; a file with records of no video is renamed."""
        parts = [np.zeros(0, self.dtype)]
        for path in sorted(self.folder.glob(SCORES)):
            data = path.read_bytes()
            records = np.frombuffer(data[: self._size_of_whole_records(len(data))], self.dtype)
            records = records[_checksums(records) == records["crc"]]
            if videos is None or self._are_of(records, videos):
                parts.append(records)
            else:
                set_aside(path, report, "its videos are scored again")
        return np.concatenate(parts)

    def _are_of(self, records: np.ndarray, videos: int) -> bool:
        """Whether ids and labels can be of a split with so many videos."""
        classes = self.dtype["scores"].shape[0]
        ids, labels = records["id"], records["label"]
        in_range = (ids >= 0) & (ids < videos) & (labels >= -1) & (labels < classes)
        return bool(in_range.all())

    def _truncate_to_whole_records(self) -> None:
        """Cut off a partial record at the end of this process's file, to align the next one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab") as file:
            file.truncate(self._size_of_whole_records(file.tell()))

    def _size_of_whole_records(self, size: int) -> int:
        return size - size % self.dtype.itemsize

    def _clear(self) -> None:
        """Delete the files of a log, but no others that a user keeps in the folder."""
        settings = (self.folder / SETTINGS, self.folder / f".{SETTINGS}.part")
        for path in (*settings, *self.folder.glob(SCORES)):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Turn an OSError into an EngineError that names the folder."""
        try:
            yield
        except OSError as error:
            raise EngineError(
                f"{self.folder}: cannot save scores: {error.strerror}; free some space, or give "
                "another --out"
            ) from error


def first_difference(earlier: Any, current: Any, name: str = "") -> str | None:
    """The first setting that differs, or None: "protocol.clips was 8, is now 4"."""
    if earlier == current:
        return None
    if not (isinstance(earlier, dict) and isinstance(current, dict)):
        return f"{name} was {printable(earlier, 80)}, is now {printable(current, 80)}"
    key = next(k for k in [*earlier, *current] if earlier.get(k) != current.get(k))
    inner = f"{name}.{key}" if name else key
    return first_difference(earlier.get(key), current.get(key), inner)


def _record_dtype(classes: int, inputs: int) -> np.dtype:
    arrays = [("scores", "<f4", (classes,)), ("ranks", "<i4", (inputs,))]
    return np.dtype([("id", "<i8"), ("label", "<i8"), *arrays, ("crc", "<u4")])


def _checksums(records: np.ndarray) -> np.ndarray:
    """CRC-32 of each record without its last four bytes, which are for the CRC."""
    return np.array([zlib.crc32(record.tobytes()[:-4]) for record in records], np.uint32)


def _read_json(path: Path) -> dict[str, Any] | None:
    """The mapping in a JSON file; None if it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
