"""The run folder's records after an interruption."""

from __future__ import annotations

import json
from pathlib import Path

from dsanet.engine.run_folder import RunFolder

ASIDE = "metrics.jsonl.damaged"


def test_a_continued_run_drops_what_it_will_record_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    kept = [
        {"kind": "train", "samples": 4},
        {"kind": "train", "samples": 8},
        {"kind": "val", "samples": 8, "epoch": 1.0},
        {"kind": "train", "samples": 16},
    ]
    late = [
        {"kind": "val", "samples": 16, "epoch": 2.0},  # validated, but not saved
        {"kind": "epoch", "samples": 16, "epoch": 2},
        {"kind": "train", "samples": 20},
    ]
    for entry in kept + late:
        folder.add(entry)
    with folder.metrics.open("a") as file:
        file.write('{"kind": "train", "samples": 1')  # killed while writing
    lines: list[str] = []
    folder.truncate_metrics(16, 1, lines.append)
    assert [json.loads(line) for line in folder.metrics.read_text().splitlines()] == kept
    assert lines == [f"WARNING: {folder.metrics}: 1 damaged line moved to {ASIDE}"]
    assert (tmp_path / ASIDE).read_text() == '{"kind": "train", "samples": 1\n'
    folder.truncate_metrics(16, 1, lines.append)
    assert len(lines) == 1
