"""The benchmarks run, and write what they measured; the figures themselves are nobody's to test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import pytest

ROOT = Path(__file__).resolve().parents[2]


def bench(out: Path, *words: str) -> dict:
    """Rows and record of one run."""
    command = [sys.executable, str(ROOT / "tools" / "bench.py"), *words, "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def shards(folder: Path) -> Path:
    """Four copies of one clip of ten seconds, where `bench.py decode` would make them."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from benches.clips import make_shards, make_videos
    finally:
        sys.path.pop(0)
    return make_shards(folder, make_videos(folder / "videos", 1), "mjpeg", 4).root


@pytest.mark.usefixtures("shards")
def test_decode_puts_ours_beside_the_peers(folder):
    record = bench(
        folder / "decode.json", "decode", "--folder", str(folder), "--plot", str(folder / "d.png"),
        "--videos=1", "--copies=4", "--batch=2", "--blocks=2", "--seconds=0.1", "--only=JPEG",
    )  # fmt: skip
    rows = {row["contestant"]: row for row in record["rows"]}
    assert record["clips"] in ("real", "generated")
    assert record["versions"]["torch"]
    for name in ("ours: JPEG frames, batch 2", "DALI readers.file", "PIL"):
        row = next(row for contestant, row in rows.items() if contestant.startswith(name))
        assert row["videos_per_s"] > 0
        assert row["blocks"] == 2
    assert (folder / "d.png").stat().st_size > 1000


def test_loader_tells_its_stages(folder, shards):
    words = ("--data", str(shards), "--seconds=0.2", "--batch=2")
    record = bench(folder / "loader.json", "loader", *words)
    rows = {row["what"]: row["value"] for row in record["rows"]}
    assert rows["videos"] > 0
    assert 1 < rows["bytes read of those stored"] < 10  # 16 of 300 frames, and no more
    for stage in ("plan", "read", "decode", "augment"):
        assert rows[f"{stage} alone"] > 0
    assert rows["step beside the loader"] > 0


def test_train_compares_shards_with_synthetic_input(folder, shards):
    record = bench(
        folder / "train.json", "train", "--data", str(shards), "--blocks=1", "--steps=1", "--start",
        "--set", "network.width=8", "augment.size=32", "augment.short_sides=[32,40]",
        "batch.videos=2", "batch.per_gpu=2",
    )  # fmt: skip
    rows = {row["case"]: row for row in record["rows"]}
    assert rows["shards / synthetic"]["ratio"] > 0
    assert rows["first step, cold"]["seconds"] > rows["synthetic"]["ms_per_step"] / 1e3


def test_clips_are_generated_where_the_real_ones_are_missing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from benches import clips

    monkeypatch.setattr(clips, "ODD", tmp_path / "nowhere")
    assert clips.kind_of_clips() == "generated"
    (path,) = clips.make_videos(tmp_path, 1)
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 340, 256)
        assert sum(1 for _ in file.decode(stream)) == 300
    # As heavy as the real ones: about 600 KB for ten seconds.
    assert 200e3 < path.stat().st_size < 2e6
