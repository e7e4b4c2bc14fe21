"""The picture of accuracy against cost: the paper's points, and own runs in the same units."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from accuracy_cost import TABLE_4, draw, own_point
from PIL import Image
from published import COSTS

from dsanet.engine import EngineError, UsageError
from dsanet.engine.command_line import parse_train
from dsanet.engine.config import dump
from tests.dsanet.engine.html_report.test_run import add_evaluation


def make_run(folder: Path, protocol: dict) -> Path:
    folder.mkdir()
    words = ["--recipe", "kinetics400", "--data", "d", "--out", str(folder)]
    (folder / "config.yaml").write_text(dump(parse_train(words)))
    out = add_evaluation(folder)
    metrics = json.loads((out / "metrics.json").read_text())
    (out / "metrics.json").write_text(json.dumps(metrics | {"protocol": protocol}))
    return out


def test_an_own_run_costs_what_the_paper_counts_for_it(tmp_path: Path) -> None:
    protocol = {"segments": 4, "clips": 8, "crops": 3, "sampling": {"frames": 4}}
    point = own_point(make_run(tmp_path / "k400", protocol))
    [published] = [c for c in COSTS if (c.source, c.giga) == ("4", "503")]
    # The paper counts 400 classes, the scores of this test have 3.
    assert point.giga == pytest.approx(float(published.giga), rel=2e-3)
    assert point.label == "k400"


def test_points_of_dsa_are_those_of_the_table_of_costs() -> None:
    [dsa] = [series for series in TABLE_4 if series.name.startswith("DSANet")]
    published = {float(c.giga) for c in COSTS if c.source == "4" and c.model == "dsa_i3d_r50"}
    assert {point.giga for point in dsa.points[:2]} == published
    assert dsa.points[2].giga == pytest.approx(sum(p.giga for p in dsa.points[:2]), abs=1)


def test_a_folder_without_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        own_point(tmp_path)


def test_the_picture_is_written_or_the_file_named(tmp_path: Path) -> None:
    draw([], tmp_path / "f.png")
    with Image.open(tmp_path / "f.png") as image:
        assert image.width > 500
    for name in ("no/f.png", "f.docx"):
        with pytest.raises(EngineError, match=name):
            draw([], tmp_path / name)
