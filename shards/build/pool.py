"""Run the worker processes of a build, and replace each one that dies."""

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

# A worker counts as hung after this many times its CPU limit without an event.
HUNG_AFTER = 10
CRASH_SIGNALS = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}


@dataclass
class WorkerHandle:
    """One worker process and the tar it is writing.

    verdicts, offset: the finished sources of the tar, and the bytes written for them.
    current: index of the source in work, -1 before the first.
    """

    plan: TarPlan
    process: subprocess.Popen[bytes]
    log: Any
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    offset: int = 0
    current: int = -1
    last_event: float = field(default_factory=time.monotonic)
    hung: bool = False
    _buffer: bytes = b""

    def read_events(self) -> list[dict[str, Any]] | None:
        """Return the events that arrived since the last call, or None at the end of the stream."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        if not data:
            return None
        self.last_event = time.monotonic()
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def assign(self, plan: TarPlan) -> None:
        """Take `plan` as the next tar of this worker, with nothing of it written."""
        self.plan, self.verdicts, self.offset, self.current = plan, [], 0, -1


@dataclass(frozen=True)
class BuildContext:
    """What all workers of a build share: the output folder, the settings and the record that goes
    into every tar; and what to call with each verdict and each finished tar."""

    folder: Path
    settings: ShardSettings
    record: dict[str, Any]
    on_verdict: Callable[[dict[str, Any]], None]
    on_tar: Callable[[str, dict[str, Any]], None]


class WorkerPool:
    """Writes tars with `context.settings.effective_workers` processes."""

    def __init__(self, context: BuildContext) -> None:
        self.context = context
        self._selector = selectors.DefaultSelector()

    def run(self, plans: Iterable[TarPlan]) -> None:
        """Write every tar of `plans`. Raises ShardError when the output cannot be written."""
        waiting = deque(plans)
        for _ in range(min(self.context.settings.effective_workers, len(waiting))):
            self._start_worker(waiting.popleft())
        try:
            while self._selector.get_map():
                self._process_events(waiting)
                self._kill_hung_workers()
        finally:
            for worker in self._workers():
                worker.process.kill()
                self._close_worker(worker)
            self._selector.close()

    def _workers(self) -> list[WorkerHandle]:
        return [key.data for key in self._selector.get_map().values()]

    def _process_events(self, waiting: deque[TarPlan]) -> None:
        for key, _ in self._selector.select(timeout=5.0):
            worker: WorkerHandle = key.data
            events = worker.read_events()
            if events is None:
                self._replace_dead_worker(worker)
            for event in events or ():
                self.handle_event(worker, event, waiting)

    def _kill_hung_workers(self) -> None:
        limit = HUNG_AFTER * self.context.settings.cpu_seconds
        for worker in self._workers():
            if time.monotonic() - worker.last_event > limit:
                worker.hung = True
                worker.process.kill()  # its stream ends, which calls `_replace_dead_worker`

    def handle_event(
        self, worker: WorkerHandle, event: dict[str, Any], waiting: deque[TarPlan]
    ) -> None:
        """Update the pool for one event of a worker; after its last one it gets the next tar."""
        if event["event"] == "begin":
            worker.current = event["i"]
        elif event["event"] == "end":
            worker.offset = event["offset"]
            self._add_verdict(worker, event["verdict"])
        elif event["event"] == "fatal":
            raise ShardError(event["message"])
        elif event["event"] == "done":
            finished = {name: event[name] for name in ("sha256", "size")}
            self.context.on_tar(worker.plan.name, finished | {"verdicts": worker.verdicts})
            if waiting:
                worker.assign(waiting.popleft())
                self._send_job(worker)
            else:
                self._close_worker(worker)

    def _add_verdict(self, worker: WorkerHandle, verdict: dict[str, Any]) -> None:
        worker.verdicts.append(verdict)
        self.context.on_verdict(verdict | {"tar": worker.plan.name})

    def _start_worker(
        self, plan: TarPlan, verdicts: Iterable[dict[str, Any]] = (), offset: int = 0
    ) -> None:
        """Start a process that writes `plan`, from the source after `verdicts` on."""
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
        assert process.stdout is not None
        worker = WorkerHandle(plan, process, log, list(verdicts), offset)
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        self._send_job(worker)

    def _send_job(self, worker: WorkerHandle) -> None:
        context = self.context
        job = {
            "part": str(context.folder / f".{worker.plan.name}.part"),
            "tar": str(context.folder / worker.plan.name),
            "settings": asdict(context.settings),
            "sources": [source.to_json() for source in worker.plan.sources],
            "record": context.record | {"number": worker.plan.number},
            "verdicts": worker.verdicts,
            "offset": worker.offset,
        }
        assert worker.process.stdin is not None
        worker.last_event = time.monotonic()
        # A dead worker is noticed by the end of its stream.
        with suppress(BrokenPipeError):
            worker.process.stdin.write(json.dumps(job).encode() + b"\n")
            worker.process.stdin.flush()

    def _close_worker(self, worker: WorkerHandle) -> None:
        assert worker.process.stdin is not None
        assert worker.process.stdout is not None
        self._selector.unregister(worker.process.stdout)
        with suppress(BrokenPipeError):
            worker.process.stdin.close()
        worker.process.wait()
        worker.process.stdout.close()
        worker.log.close()

    def _replace_dead_worker(self, worker: WorkerHandle) -> None:
        """Give the source in work a verdict, and start a process that goes on after it."""
        code = worker.process.wait()
        worker.log.seek(0)
        log = worker.log.read().decode(errors="replace").strip()
        self._close_worker(worker)
        if worker.current < len(worker.verdicts):
            last = log.splitlines()[-1] if log else f"exit code {code}"
            raise ShardError(f"a worker process ended outside any video: {last}")
        source = worker.plan.sources[worker.current]
        verdict = {"key": source.key, "source": source.name, "labels": list(source.all_labels)}
        self._add_verdict(worker, verdict | {"bytes_in": 0} | self._explain_exit(worker, code))
        self._start_worker(worker.plan, worker.verdicts, worker.offset)

    def _explain_exit(self, worker: WorkerHandle, code: int) -> dict[str, Any]:
        """Return status, kind and reason of the source during which the worker ended."""
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if -code in CRASH_SIGNALS:
            return {"status": "refused", "kind": "crash", "reason": f"crashed FFmpeg ({name})"}
        kind, reason = "worker", f"its worker process was ended by {name}"
        limit = self.context.settings.cpu_seconds
        if worker.hung:
            kind, reason = "time", f"no sign of life for {HUNG_AFTER * limit} s"
        elif -code == signal.SIGXCPU:
            kind, reason = "time", f"took more than {limit} s of CPU time"
        return {"status": "deferred", "kind": kind, "reason": f"{reason}: run again"}
