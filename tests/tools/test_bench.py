"""The benchmarks run and write what they measured."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def bench(out: Path, *words: str) -> dict:
    """Run tools/bench.py: the contents of its JSON file."""
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
        from benches.shard_sets import make_shards
        from benches.videos import make_videos
    finally:
        sys.path.pop(0)
    return make_shards(folder, make_videos(folder / "videos", 1), "mjpeg", 4).root


@pytest.mark.usefixtures("shards")
def test_decode_measures_this_package_and_other_libraries(folder):
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


def test_loader_measures_each_stage(folder, shards):
    words = ("--data", str(shards), "--seconds=0.2", "--batch=2")
    record = bench(folder / "loader.json", "loader", *words)
    rows = {row["what"]: row["value"] for row in record["rows"]}
    assert rows["videos"] > 0
    assert 1 < rows["bytes read of those stored"] < 10  # 16 of 300 frames are 5.3 %
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


def test_clips_are_generated_where_no_real_ones_are_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from benches import videos

    monkeypatch.delenv("DSANET_CLIPS", raising=False)
    assert videos.kind_of_videos() == "generated"
    (path,) = videos.make_videos(tmp_path, 1)
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 340, 256)
        assert sum(1 for _ in file.decode(stream)) == 300
    # As large as the real ones: about 600 KB for ten seconds.
    assert 200e3 < path.stat().st_size < 2e6


def test_real_clips_come_first_then_variants_of_them(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from benches import videos

    real = tmp_path / "real"
    real.mkdir()
    colours = (np.full((48, 64, 3), shade, np.uint8) for shade in range(0, 250, 25))
    videos.encode(real / "a.mp4", colours, 64, 48, Fraction(30))
    monkeypatch.setenv("DSANET_CLIPS", str(real))
    assert videos.kind_of_videos() == "real"
    first, second = videos.make_videos(tmp_path / "made", 2)
    assert first.read_bytes() == (real / "a.mp4").read_bytes() != second.read_bytes()
    (real / "a.mp4").unlink()
    with pytest.raises(FileNotFoundError, match="DSANET_CLIPS"):
        videos.make_videos(tmp_path / "none", 1)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("train", "--data", "/nowhere"), ("/nowhere", "tools/shard.py")),
        (("eval", "--data", "/nowhere"), ("/nowhere", "tools/shard.py")),
        (("shard", "--parts", "colour"), ("--parts", "colour")),
        (("loader", "--device", "cuda:99"), ("cuda:99",)),
    ],
)
def test_mistakes_are_reported_in_one_line(words, parts):
    command = [sys.executable, str(ROOT / "tools" / "bench.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    message = done.stderr.splitlines()[-1]
    assert "error: " in message
    assert all(part in message for part in parts)
