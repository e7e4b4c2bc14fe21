"""Scores kept as they are made, so that an evaluation that is killed goes on where it was.

`OUT/partial/` holds `settings.json`, what the scores were made with, and a file of each process to
which a record is appended for every video. A record carries its CRC-32: one that a crash has cut
short or spoilt is not read, and its video is scored again.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dsanet.engine.checkpoint import write_atomic
from dsanet.engine.errors import EngineError
from dsanet.engine.evaluation.scoring import ScoreTable
from dsanet.engine.launch.distributed import World
from dsanet.engine.launch.signals import Interrupted, Signals, Stop

NAME = "partial"
MARK = "settings.json"
SCORES = "scores-*.bin"


def _record(classes: int) -> np.dtype:
    fields = [("id", "<i8"), ("label", "<i8"), ("scores", "<f4", (classes,)), ("crc", "<u4")]
    return np.dtype(fields)


def _checksums(records: np.ndarray) -> np.ndarray:
    """CRC-32 of each record but for its last four bytes."""
    return np.array([zlib.crc32(record.tobytes()[:-4]) for record in records], np.uint32)


def difference(before: Any, now: Any, name: str = "") -> str | None:
    """The first setting that differs, or None: `protocol.clips was 8, now it is 4`."""
    if before == now:
        return None
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return f"{name or 'it'} was {before}, now it is {now}"
    key = next(k for k in [*before, *now] if before.get(k) != now.get(k))
    return difference(before.get(key), now.get(key), f"{name}.{key}" if name else key)


class Journal:
    """The kept scores of one evaluation, and the end of it when a signal asks for that.

    Only one evaluation at a time may write into a folder; it may have any number of processes.
    """

    def __init__(
        self, out: Path, classes: int, world: World, signals: Signals | None = None
    ) -> None:
        self.folder = out / NAME
        self.world = world
        self.signals = signals or Signals()
        self.dtype = _record(classes)
        self.file = self.folder / f"scores-{world.rank:05d}.bin"

    def begin(self, settings: dict[str, Any], say: Callable[[str], None]) -> ScoreTable:
        """What an earlier start with the same settings has scored; every process must call it.

        Scores made in another way are dropped, which is said.

        Raises:
            EngineError: when the folder can't be written.
        """
        with self._writing():
            data = self._open(settings, say).tobytes() if self.world.main else b""
        records = np.frombuffer(self.world.broadcast(data), self.dtype)
        with self._writing():
            self._mend()
        _, first = np.unique(records["id"], return_index=True)
        kept = records[first]
        return ScoreTable(kept["id"], kept["label"], kept["scores"])

    def _open(self, settings: dict[str, Any], say: Callable[[str], None]) -> np.ndarray:
        mark = self.folder / MARK
        wanted = json.loads(json.dumps(settings))
        records = np.zeros(0, self.dtype)
        if mark.is_file():
            before = _read(mark)
            if before == wanted:
                return self._read_all()
            why = f"{mark} is damaged"
            if before is not None:
                why = f"{self.folder} holds scores made in another way: "
                why += str(difference(before, wanted))
            say(f"WARNING: starting anew, {why}")
        self._clear()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(mark, json.dumps(settings, indent=1).encode())
        return records

    def _read_all(self) -> np.ndarray:
        found = [np.zeros(0, self.dtype)]
        for path in sorted(self.folder.glob(SCORES)):
            data = path.read_bytes()
            found.append(np.frombuffer(data[: _whole(len(data), self.dtype)], self.dtype))
        records = np.concatenate(found)
        return records[_checksums(records) == records["crc"]]

    def _mend(self) -> None:
        """Cut off what a crash has left of a record, so that the next one begins at its place."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab") as file:
            file.truncate(_whole(file.tell(), self.dtype))

    def _clear(self) -> None:
        """Drop what was kept, and no more: a folder of that name may hold other things."""
        for path in (*self.folder.glob(f"{MARK}*"), *self.folder.glob(SCORES)):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise EngineError(
                f"cannot keep scores in {self.folder}: {error.strerror}; make room there, or give "
                "another --out"
            ) from error

    def add(self, rows: ScoreTable) -> bool:
        """Append the scores of videos (id -1: none); whether a signal asks to stop now.

        Raises:
            EngineError: when they can't be written.
        """
        there = rows.ids >= 0
        records = np.zeros(int(there.sum()), self.dtype)
        records["id"], records["label"] = rows.ids[there], rows.labels[there]
        records["scores"] = rows.scores[there]
        records["crc"] = _checksums(records)
        with self._writing(), self.file.open("ab", buffering=0) as file:
            file.write(records.tobytes())
        return bool(self.signals.stop)

    def agree(self) -> None:
        """Leave together if a signal has come to any process; every process must call it.

        Raises:
            Interrupted: on all processes alike.
        """
        stops = self.world.gather(np.array([self.signals.stop], np.int64))
        if stop := Stop(max(int(s[0]) for s in stops)):
            raise Interrupted(stop)

    def remove(self) -> None:
        """Drop the kept scores: they are in scores.npz now."""
        with contextlib.suppress(OSError):
            self._clear()


def _whole(size: int, dtype: np.dtype) -> int:
    return size - size % dtype.itemsize


def _read(path: Path) -> dict[str, Any] | None:
    """The settings in a file, None where it is damaged."""
    try:
        content = json.loads(path.read_text())
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
