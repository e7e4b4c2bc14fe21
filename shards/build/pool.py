"""Keeps the worker processes busy, and outlives each of them."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shards.build.plan import TarPlan
from shards.errors import ShardError
from shards.format.settings import ShardSettings

SILENCE = 10  # a worker silent for so many times its CPU limit is taken for hung
CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}


@dataclass
class Hand:
    """One worker process and the tar it has in hand."""

    plan: TarPlan
    process: subprocess.Popen[bytes]
    log: Any
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    offset: int = 0
    begun: int = -1
    heard: float = field(default_factory=time.monotonic)
    hung: bool = False
    _buffer: bytes = b""

    def events(self) -> list[dict[str, Any]] | None:
        """Events that arrived since the last call; None at the end of the stream."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        if not data:
            return None
        self.heard = time.monotonic()
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]


@dataclass(frozen=True)
class Crew:
    """What all workers of a build share."""

    folder: Path
    settings: ShardSettings
    record: dict[str, Any]
    on_verdict: Callable[[dict[str, Any]], None]
    on_tar: Callable[[str, dict[str, Any]], None]


class Pool:
    """Writes tars with `crew.settings.effective_workers` processes."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self._selector = selectors.DefaultSelector()

    def run(self, plans: Iterable[TarPlan]) -> None:
        """Write every tar of `plans`. Raises ShardError when the output cannot be written."""
        waiting = deque(plans)
        for _ in range(min(self.crew.settings.effective_workers, len(waiting))):
            self._give(self._start(waiting.popleft()))
        try:
            while self._selector.get_map():
                self._turn(waiting)
        finally:
            for key in list(self._selector.get_map().values()):
                key.data.process.kill()
                self._dismiss(key.data)
            self._selector.close()

    def _turn(self, waiting: deque[TarPlan]) -> None:
        for key, _ in self._selector.select(timeout=5.0):
            hand: Hand = key.data
            events = hand.events()
            if events is None:
                self._replace(hand)
            for event in events or ():
                self._hear(hand, event, waiting)
        limit = SILENCE * self.crew.settings.cpu_seconds
        for key in list(self._selector.get_map().values()):
            if time.monotonic() - key.data.heard > limit:
                key.data.hung = True
                key.data.process.kill()  # its stream ends, and `_replace` takes over

    def _hear(self, hand: Hand, event: dict[str, Any], waiting: deque[TarPlan]) -> None:
        if event["event"] == "begin":
            hand.begun = event["i"]
        elif event["event"] == "end":
            hand.offset = event["offset"]
            self._count(hand, event["verdict"])
        elif event["event"] == "fatal":
            raise ShardError(event["message"])
        elif event["event"] == "done":
            state = {"sha256": event["sha256"], "size": event["size"], "verdicts": hand.verdicts}
            self.crew.on_tar(hand.plan.name, state)
            if waiting:
                hand.plan, hand.verdicts, hand.offset, hand.begun = waiting.popleft(), [], 0, -1
                self._give(hand, new=False)
            else:
                self._dismiss(hand)

    def _count(self, hand: Hand, verdict: dict[str, Any]) -> None:
        hand.verdicts.append(verdict)
        self.crew.on_verdict(verdict | {"tar": hand.plan.name})

    def _start(self, plan: TarPlan) -> Hand:
        log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the worker)
        root = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        process = subprocess.Popen(
            [sys.executable, "-m", "shards.build.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )
        return Hand(plan, process, log)

    def _give(self, hand: Hand, new: bool = True) -> None:
        crew = self.crew
        job = {
            "part": str(crew.folder / f".{hand.plan.name}.part"),
            "tar": str(crew.folder / hand.plan.name),
            "settings": asdict(crew.settings),
            "sources": [source.to_json() for source in hand.plan.sources],
            "record": crew.record | {"number": hand.plan.number},
            "verdicts": hand.verdicts,
            "offset": hand.offset,
        }
        assert hand.process.stdin is not None
        assert hand.process.stdout is not None
        hand.heard = time.monotonic()
        if new:
            self._selector.register(hand.process.stdout, selectors.EVENT_READ, hand)
        with suppress(BrokenPipeError):  # it died; its stream ends, and `_replace` says so
            hand.process.stdin.write(json.dumps(job).encode() + b"\n")
            hand.process.stdin.flush()

    def _dismiss(self, hand: Hand) -> None:
        assert hand.process.stdin is not None
        assert hand.process.stdout is not None
        self._selector.unregister(hand.process.stdout)
        with suppress(BrokenPipeError):
            hand.process.stdin.close()
        hand.process.wait()
        hand.process.stdout.close()
        hand.log.close()

    def _replace(self, hand: Hand) -> None:
        """A worker died: judge the source it had in hand, and let a new one go on after it."""
        code = hand.process.wait()
        hand.log.seek(0)
        log = hand.log.read().decode(errors="replace").strip()
        self._dismiss(hand)
        if hand.begun < len(hand.verdicts):
            last = log.splitlines()[-1] if log else f"exit code {code}"
            raise ShardError(f"a worker process ended outside any video: {last}")
        source = hand.plan.sources[hand.begun]
        basis = {"key": source.key, "source": source.name, "labels": list(source.all_labels)}
        self._count(hand, basis | {"bytes_in": 0} | self._inquest(hand, code))
        fresh = self._start(hand.plan)
        fresh.verdicts, fresh.offset = hand.verdicts, hand.offset
        self._give(fresh)

    def _inquest(self, hand: Hand, code: int) -> dict[str, Any]:
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if -code in CRASHES:
            return {"status": "refused", "kind": "crash", "reason": f"crashed FFmpeg ({name})"}
        kind, reason = "worker", f"its worker process was ended by {name}"
        limit = self.crew.settings.cpu_seconds
        if hand.hung:
            kind, reason = "time", f"no sign of life for {SILENCE * limit} s"
        elif -code == signal.SIGXCPU:
            kind, reason = "time", f"took more than {limit} s of CPU time"
        return {"status": "deferred", "kind": kind, "reason": f"{reason}: run again"}
