"""The index of a set as large as Kinetics-400 opens in a moment and costs next to no memory."""

from __future__ import annotations

import pytest
from benches.synthetic_index import probe_index, synthetic_split


@pytest.mark.parametrize(
    ("videos", "frames"),
    [(2_400, 30), pytest.param(240_000, 300, marks=pytest.mark.slow)],
)
def test_opening_is_fast_and_small(tmp_path, videos, frames):
    synthetic_split(tmp_path, videos, frames)
    found = probe_index(tmp_path)
    assert found["n"] == videos
    assert found["seconds"] < 1.0
    assert found["megabytes"] < 200
    assert found["lookup"] < 1e-3
