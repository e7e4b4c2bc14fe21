"""The table of goals: where each figure comes from, and its verdict."""

from __future__ import annotations

from typing import Any

import pytest
from gpu.goals import GOALS, goals_table
from gpu.variants import compared

RESULTS: dict[str, list[dict[str, Any]]] = {
    "step": [
        {"what": "training step", "videos_per_second": 300.0, "peak_gib": 25.0},
        {"what": "training step", "videos_per_second": 421.0, "peak_gib": 21.3},
    ],
    "loop": [
        {"decode_on": "gpu", "case": "shards / synthetic", "ratio": 0.95, "verdict": "data-bound"},
        {"decode_on": "cpu", "case": "shards / synthetic", "ratio": 0.98, "verdict": "compute"},
    ],
    "evaluation": [
        {"case": "network alone", "videos_per_second": 260.0},
        {"case": "from shards", "videos_per_second": 190.0},
    ],
    "variants": [
        {"what": "T = 8, batch 16", "videos_per_second": 209.0, "over_baseline": 1.0},
        {"what": "TSN, without DSA", "over_baseline": 1 / 1.015 - 1},
    ],
}
EXPECTED = {
    "training step, T = 4": (421.0, "met"),
    "training step, T = 8": (209.0, "missed"),
    "from shards / synthetic": (0.98, "met"),
    "evaluation, 8 clips x 3 crops": (190.0, "missed"),
    "memory at batch 32": (21.3, "met"),
    "DSA over TSN": (1.5, "met"),
}


def test_each_goal_has_its_figure_and_what_to_do_next() -> None:
    table = {row["goal"]: row for row in goals_table(RESULTS, toy=False)}
    assert table.keys() == EXPECTED.keys()
    for name, (figure, verdict) in EXPECTED.items():
        assert table[name]["measured"] == pytest.approx(figure)
        assert table[name]["verdict"] == verdict
        assert table[name]["next"]


def test_what_is_not_measured_or_not_on_a_gpu_has_no_verdict() -> None:
    assert {row["verdict"] for row in goals_table({}, toy=False)} == {"not measured"}
    assert {row["verdict"] for row in goals_table(RESULTS, toy=True)} == {"toy sizes"}
    assert len(GOALS) == 6


def test_a_variant_is_compared_per_video_block_by_block() -> None:
    # Twice the videos in 1.8 times the time; the second pair ran on a machine half as fast.
    figures = compared([(0.1, 0.18), (0.2, 0.36), (0.1, 0.18)], baseline_videos=32, videos=64)
    assert figures["over_baseline"] == pytest.approx(-0.1)
    assert figures["videos_per_second"] == pytest.approx(64 / 0.18)
    assert figures["baseline_ms"] == pytest.approx(100)
