"""The list of broken videos, and the limit at which a job stops."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from dsanet.errors import printable
from dsanet.terminal import print_line
from pipelines.errors import LoaderError
from shards.format.files import naming

MIN_LIMIT = 8  # so many broken videos never stop a job, however small the split
SHOWN = 10


class QuarantineFile:
    """quarantine.jsonl: one line of JSON for each broken video, whoever finds it and however often.

    path: None writes nothing. split: name of the split that the ids are of.
    """

    def __init__(self, path: Path | None, split: str, rank: int = 0) -> None:
        self.path, self.split, self.rank = path, split, rank
        self._listed: set[int] = set()
        self._position = 0

    def add(self, sample: int, reason: str, epoch: int | None = None) -> None:
        """Append an entry, unless this process, another one or an earlier start has written it."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cut_off = self._read_new(self.path)
        if sample in self._listed:
            return
        entry = {"split": self.split, "id": sample, "reason": printable(reason)}
        line = json.dumps(entry | {"epoch": epoch, "rank": self.rank}) + "\n"
        # One write in append mode: the lines of several processes never mix.
        with naming(self.path), open(self.path, "ab", buffering=0) as file:
            file.write((b"\n" if cut_off else b"") + line.encode())

    def _read_new(self, path: Path) -> bool:
        """Read the lines added since the last call; whether a crash has cut off the last one."""
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            file.seek(self._position)
            data = file.read()
        lines, end, rest = data.rpartition(b"\n")
        self._position += len(lines) + len(end)
        for line in lines.splitlines():
            if (sample := self._sample(line)) is not None:
                self._listed.add(sample)
        return bool(rest)

    def _sample(self, line: bytes) -> int | None:
        """Id in a line, None for another split or a damaged line."""
        try:
            entry = json.loads(line)
            return int(entry["id"]) if entry["split"] == self.split else None
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None


class Quarantine:
    """Broken videos of one process in training; each is printed, and listed in a file, once.

    path, split, rank: see `QuarantineFile`. total, share: at most this share of `total` videos may
    be broken.
    """

    def __init__(
        self, path: Path | None, split: str, total: int, share: float, rank: int = 0
    ) -> None:
        self.path, self.file = path, QuarantineFile(path, split, rank)
        self.limit = max(MIN_LIMIT, int(total * share))
        self.reasons: dict[int, str] = {}
        self._lock = threading.Lock()

    def add(self, sample: int, reason: str, epoch: int | None = None) -> None:
        """Record a broken video. LoaderError once there are more than the limit."""
        with self._lock:
            if sample in self.reasons:
                return
            self.reasons[sample] = reason
            self.file.add(sample, reason, epoch)
        print_line(f"warning: quarantined: {reason}", error=True)
        if len(self.reasons) > self.limit:
            shown = "; ".join(list(self.reasons.values())[:SHOWN])
            raise LoaderError(
                f"{len(self.reasons)} bad videos exceed the limit of {self.limit} "
                f"(loader.bad_share): {shown}"
                + (f"; the whole list is in {self.path}" if self.path else "")
            )
