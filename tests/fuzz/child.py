"""Runs cases of the fuzzer one after another, each within limits, and reports what they did.

    python -m tests.fuzz.child BASE WORK quick|deep KIND:FIRST:COUNT ...

A line of JSON for each case, on the descriptor that was standard output: "begin" with its kind and
seed, then "end" with the faults found. A case that hangs or crashes ends the process after its
"begin". BASE: a folder with a good shard set; WORK: an empty one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fuzz.cases import make_checkpoint, prepare

SECONDS, MEMORY = 20, 1_500_000_000  # of one case
# Beginnings of lines that a command may print on standard error.
LINES = ("error: ", "warning: ", "fault: ", "WARNING: ")
# libjpeg, inside DALI, writes lines of its own about damaged JPEGs.
LIBJPEG = re.compile(
    "(Corrupt JPEG|Bogus|Invalid|Huffman|Quantization|Premature|Unsupported|Warning|Inconsistent|"
    "Application transferred|Unknown|Duplicate|Sampling|Not a JPEG|Cannot|Image too|Empty).{0,120}"
)
NAMED = ("set", "out", "in", "tiny.yaml")  # what the command lines name


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """Allow the block MEMORY more address space than the process has, and SECONDS."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))
    size = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = size * resource.getpagesize() + MEMORY
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, wherever it is
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def captured() -> Iterator[list[str]]:
    """Standard output and error of the block, of C libraries too, as two texts."""
    texts: list[str] = []
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    files = [os.memfd_create("out"), os.memfd_create("err")]
    for number, file in zip((1, 2), files, strict=True):
        os.dup2(file, number)
    try:
        yield texts
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)
        for file in files:
            with os.fdopen(file, "rb") as stream:
                stream.seek(0)
                texts.append(stream.read().decode("utf-8", "surrogateescape"))


def find_faults(code: int, out: str, err: str) -> list[str]:
    """What is wrong with how a command ended."""
    faults = [] if code in (0, 1, 2, 3) else [f"exit code {code}"]
    if "Traceback" in out + err:
        faults.append("a traceback")
    lines = [line for line in err.split("\n") if line]
    errors = [line for line in lines if line.startswith("error: ")]
    if code in (1, 2) and len(errors) != 1 and not any(x.startswith("fault: ") for x in lines):
        faults.append(f"{len(errors)} lines of errors")
    known = [x for x in lines if x.startswith(LINES) or LIBJPEG.fullmatch(x)]
    odd = [x for x in lines if x not in known or not x.isprintable()]
    odd += [x for x in out.split("\n") if not x.isprintable()]
    return faults + [f"an odd line: {x!a}"[:300] for x in odd[:2]]


def new_files(work: Path, base: Path) -> list[str]:
    """Files that lie outside of the folders that the command named."""
    root = work.parents[3]
    found = []
    for path in root.rglob("*"):
        inside = path.is_relative_to(work) and path != work
        if inside and path.relative_to(work).parts[0] in NAMED:
            continue
        if path.is_relative_to(base) or path == work or path in work.parents:
            continue
        found.append(str(path))
    return found


def run_case(kind: str, seed: int, work: Path, base: Path, deep: bool) -> dict[str, Any]:
    """Run the commands of one case, up to the first that fails; returns what was found."""
    work.mkdir(parents=True)
    commands = prepare(kind, seed, work, base, deep)
    code, faults, shown = 0, [], ""
    for command in commands:
        with captured() as texts:
            try:
                with limits():
                    code = command()
            except BaseException:
                traceback.print_exc()
                code = 99
        faults = find_faults(code, *texts)
        shown = texts[1][-3000:]
        if faults or code:
            break
    faults += [f"outside: {path}" for path in new_files(work, base)]
    shutil.rmtree(work)
    return {"code": code, "faults": faults, "text": shown if faults else shown[-200:]}


def main() -> None:
    base, work, depth = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    if not (base / "checkpoint.pt").exists():
        make_checkpoint(base / "checkpoint.pt")
    for kind, first, count in (word.split(":") for word in sys.argv[4:]):
        for seed in range(int(first), int(first) + int(count)):
            print(json.dumps({"begin": [kind, seed]}), file=report, flush=True)
            case = work / "a" / "b" / "c" / "case"
            result = run_case(kind, seed, case, base, depth == "deep")
            print(json.dumps({"end": [kind, seed]} | result), file=report, flush=True)


if __name__ == "__main__":
    main()
