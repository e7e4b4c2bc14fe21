"""The list of broken videos, and the limit at which a job stops."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from pipelines.errors import LoaderError

MIN_LIMIT = 8  # so many broken videos never stop a job, however small the split
SHOWN = 10


class Quarantine:
    """Broken videos of one process; each is printed, and written to `path` as a line of JSON, once.

    total, share: at most this share of `total` videos may be broken.
    """

    def __init__(self, path: Path | None, total: int, share: float, rank: int = 0) -> None:
        self.path, self.rank = path, rank
        self.limit = max(MIN_LIMIT, int(total * share))
        self.reasons: dict[int, str] = {}
        self._lock = threading.Lock()

    def add(self, sample: int, reason: str, epoch: int | None = None) -> None:
        """Record a broken video. LoaderError once there are more than the limit."""
        with self._lock:
            if sample in self.reasons:
                return
            self.reasons[sample] = reason
            self._write({"id": sample, "reason": reason, "epoch": epoch, "rank": self.rank})
        print(f"warning: quarantined: {reason}", file=sys.stderr, flush=True)
        if len(self.reasons) > self.limit:
            shown = "; ".join(list(self.reasons.values())[:SHOWN])
            raise LoaderError(
                f"{len(self.reasons)} bad videos exceed the limit of {self.limit} "
                f"(loader.bad_share): {shown}"
                + (f"; the whole list is in {self.path}" if self.path else "")
            )

    def _write(self, entry: dict[str, object]) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # One write in append mode: the lines of several processes never mix.
        with open(self.path, "a", buffering=1) as file:
            file.write(json.dumps(entry) + "\n")
