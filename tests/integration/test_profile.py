"""train.py --profile: the trace of some steps, its table and picture, and memory snapshots."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import plot_trace
import pytest
import torch

from dsanet.engine.config import profiled_steps
from dsanet.engine.errors import EngineError, UsageError
from dsanet.engine.report.profiler import memory_on_failure
from tests.integration.scripts import course, train_here

LOADER = {"plan", "read", "decode", "augment"}


def test_the_trace_has_the_steps_and_their_ranges(
    small_shards: Path, tiny: Path, tmp_path: Path
) -> None:
    words = ("--data", small_shards, "--config", tiny, "--epoch_limit", 1)
    words += ("--validation.split", "null", "--runtime.preflight", "false")
    run, plain = tmp_path / "run", tmp_path / "plain"
    assert train_here(*words, "--out", run, "--profile", "2:3", "--loader.prefetch", 1) == 0
    assert train_here(*words, "--out", plain) == 0
    assert course(run) == course(plain)
    [trace] = (run / "profile").glob("trace-*.json.gz")
    assert trace.name == "trace-steps-2-4.json.gz"
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    ranges = [event for event in events if event.get("cat") == "user_annotation"]
    counts = Counter(event["name"] for event in ranges)
    # Batches of 4 videos in groups of 2: two passes a step.
    assert (counts["forward"], counts["backward"], counts["update"]) == (6, 6, 3)
    assert counts["wait for data"] == 3
    assert counts.keys() & LOADER
    trainer = {event["tid"] for event in ranges if event["name"] == "forward"}
    assert not trainer & {event["tid"] for event in ranges if event["name"] in LOADER}
    table = (run / "profile" / "kernels-steps-2-4.txt").read_text(encoding="utf-8")
    assert "convolution" in table
    picture = tmp_path / "trace.png"
    assert plot_trace.main([str(trace), "--out", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_run_that_ends_early_writes_what_it_has(
    small_shards: Path, tiny: Path, tmp_path: Path
) -> None:
    words = ("--data", small_shards, "--config", tiny, "--epoch_limit", 1, "--out", tmp_path)
    words += ("--validation.split", "null", "--runtime.preflight", "false")
    assert train_here(*words, "--profile", "4:100") == 0
    assert (tmp_path / "profile" / "trace-steps-4-5.json.gz").is_file()


@pytest.mark.parametrize("text", ["20", "0:5", "20:0", "a:b", "1:2:3", "-1:2", ""])
def test_other_texts_than_first_and_count_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="profile must be FIRST:COUNT"):
        profiled_steps(text)


def test_steps_are_counted_from_first() -> None:
    assert list(profiled_steps("20:3") or ()) == [20, 21, 22]
    assert profiled_steps(None) is None


def test_a_file_that_is_no_trace_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(EngineError, match="is not a trace"):
        plot_trace.read_trace(path)


def test_a_snapshot_is_written_where_memory_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, lines = [], []
    monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", written.append)
    gpu = torch.device("cuda", 0)
    with (
        pytest.raises(torch.cuda.OutOfMemoryError),
        memory_on_failure(tmp_path, gpu, 3, lines.append),
    ):
        raise torch.cuda.OutOfMemoryError("no room")
    assert written == [str(tmp_path / "memory-out-of-memory-rank-3.pickle")]
    assert written[0] in lines[0]
    with pytest.raises(ValueError, match="else"), memory_on_failure(tmp_path, gpu, 3, lines.append):
        raise ValueError("else")
    assert len(written) == 1


def test_a_disk_that_is_full_does_not_hide_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", full)
    lines: list[str] = []
    gpu = torch.device("cuda", 0)
    with (
        pytest.raises(torch.cuda.OutOfMemoryError),
        memory_on_failure(tmp_path, gpu, 0, lines.append),
    ):
        raise torch.cuda.OutOfMemoryError("no room")
    assert lines[0].startswith("WARNING")
