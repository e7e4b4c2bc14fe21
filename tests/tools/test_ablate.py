"""tools/ablate.py: train.py and eval.py accept the options of every row."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ablate import commands, folder_name
from ablations import TABLES

import dsanet
from dsanet.engine.command_line import parse_train
from dsanet.engine.config import plain
from dsanet.engine.evaluation.config import parse_eval

ROWS = {f"{number}: {row.label}": row for number, rows in TABLES.items() for row in rows}


@pytest.mark.parametrize("name", ROWS)
def test_train_and_eval_accept_a_row(name, tmp_path):
    row = ROWS[name]
    train, test = commands(row, "shards", tmp_path / folder_name(row), [])
    config = parse_train(train[1:])
    segments = config.sampling.segments
    options = plain(config.network) | {"width": 16}
    network = dsanet.build_model(config.model, num_classes=2, segments=segments, **options)
    assert network.train_segments == segments
    evaluation = parse_eval(test[1:])
    assert evaluation.crops == 3
    assert evaluation.clips % (network.segments or 1) == 0


@pytest.mark.parametrize(("blocks", "stages"), [(1, [5]), (4, [4, 5]), (5, [3, 4]), (3, [2, 3])])
def test_table_2f_inserts_as_many_blocks_as_the_paper(blocks, stages):
    row = next(row for row in TABLES["2f"] if row.options == ("--network.stages", str(stages)))
    network = dsanet.build_model(row.model, num_classes=2, stages=stages, width=16)
    assert sum(isinstance(module, dsanet.DSA) for module in network.modules()) == blocks
    assert f"{blocks} blocks" in row.label


def test_weights_are_those_of_the_rows_backbone(tmp_path):
    for row in TABLES["2h"]:
        train, _ = commands(row, "shards", tmp_path, ["--weights", "{backbone}.pth"])
        assert train[-1] == ("resnet18.pth" if "R18" in row.label else "resnet50.pth")


def test_rows_of_a_table_have_different_folders():
    for rows in TABLES.values():
        assert len({folder_name(row) for row in rows}) == len(rows)


def test_commands_are_printed():
    script = Path(__file__).parents[2] / "tools" / "ablate.py"
    words = [sys.executable, str(script), "2c", "--data", "shards", "--", "--seed", "3"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("python ")]
    assert len(lines) == 2 * len(TABLES["2c"])
    assert all(line.endswith("--seed 3") for line in lines[::2])
    assert "not run" in done.stdout
