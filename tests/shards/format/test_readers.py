"""The tars are valid WebDataset: webdataset, DALI and the standard library read them."""

from __future__ import annotations

import gc
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest

from shards import ShardSettings, Source, build_split, open_split
from tests.shards.media import moving_squares, write_video


def build(tmp_path_factory, codec: str):
    """Two tars; one listed video is missing, so that there is a hole."""
    videos, root = tmp_path_factory.mktemp("videos"), tmp_path_factory.mktemp("set")
    sources = []
    for number in range(8):
        path = write_video(
            videos / f"v{number}.mp4", moving_squares(9 + number, (192, 144), seed=number)
        )
        sources.append(Source(path, number % 3, f"v{number}", name=path.name))
    sources.append(Source(videos / "gone.mp4", 0, "gone", name="gone.mp4"))
    settings = ShardSettings(codec=codec, workers=1, tar_samples=5)
    assert build_split(sources, root, "train", ["a", "b", "c"], settings).exit_code == 3
    return open_split(root, "train")


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return build(tmp_path_factory, "mjpeg")


@pytest.fixture(scope="module")
def vp9(tmp_path_factory):
    return build(tmp_path_factory, "vp9")


# The webdataset package leaves its files to the garbage collector.
unclosed = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def frames_of(data: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(data), format="mp4") as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


@unclosed
def test_the_webdataset_package_reads_every_sample(split):
    wds = pytest.importorskip("webdataset")
    urls = [str(path) for path in split.tars]
    samples = list(wds.WebDataset(urls, shardshuffle=False))
    assert [s["__key__"] for s in samples] == [split.key(i) for i in range(len(split))]
    for i, sample in enumerate(samples):
        assert int(sample["cls"]) == split.samples["label"][i]
        metadata = json.loads(sample["json"])
        table = np.load(io.BytesIO(sample["frames.npy"]), allow_pickle=False)
        assert metadata["frames"] == len(table) == len(frames_of(sample["mp4"]))
    gc.collect()


@unclosed
def test_webdataset_decodes_labels_and_tables_by_extension(split):
    wds = pytest.importorskip("webdataset")
    urls = [str(path) for path in split.tars]
    data = wds.WebDataset(urls, shardshuffle=False).decode().to_tuple("cls", "frames.npy", "json")
    label, table, metadata = next(iter(data))
    assert isinstance(label, int)
    assert len(table) == metadata["frames"]
    gc.collect()


@pytest.mark.parametrize("index", [True, False], ids=["with idx", "without idx"])
@pytest.mark.parametrize("codec", ["split", "vp9"])
def test_dali_reads_and_decodes_every_sample(request, codec, index):
    pytest.importorskip("nvidia.dali")
    from nvidia.dali import fn, pipeline_def, types

    split = request.getfixturevalue(codec)
    paths = [str(path) for path in split.tars]
    more = {"index_paths": [path[:-3] + "idx" for path in paths]} if index else {}

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def read():
        video, label = fn.readers.webdataset(
            paths=paths, ext=["mp4", "cls"], name="reader", missing_component_behavior="error",
            **more,
        )  # fmt: skip
        chosen = types.Constant(np.array([0, 4, 8], np.int32), device="cpu")
        return fn.decoders.video(video, frames=chosen, device="cpu"), label

    pipeline = read()
    pipeline.build()
    assert pipeline.reader_meta("reader")["epoch_size"] == len(split)
    for i in range(len(split)):
        clip, label = (output.at(0) for output in pipeline.run())
        row = split.samples[i]
        assert bytes(np.asarray(label)) == str(row["label"]).encode()
        tar = split.tar_path(i).read_bytes()
        expected = frames_of(tar[row["offset"] : row["offset"] + row["size"]])
        for t, frame in zip((0, 4, 8), np.asarray(clip), strict=True):
            assert np.abs(frame.astype(int) - expected[t]).mean() < 3


def test_dali_decodes_single_frames_by_the_index(split):
    pytest.importorskip("nvidia.dali")
    from nvidia.dali import fn, pipeline_def

    jpegs, expected = [], []
    for i in (0, 3, 7):
        row, data = split.samples[i], split.tar_path(i).read_bytes()
        where = split.frames[row["first_frame"] + 5]
        start = row["offset"] + where["offset"]
        jpegs.append(np.frombuffer(data[start : start + where["size"]], np.uint8))
        expected.append(frames_of(data[row["offset"] : row["offset"] + row["size"]])[5])

    @pipeline_def(batch_size=3, num_threads=1, device_id=None)
    def decode():
        return fn.decoders.image(fn.external_source(source=[jpegs], cycle=True), device="cpu")

    pipeline = decode()
    pipeline.build()
    (pictures,) = pipeline.run()
    for picture, wanted in zip(pictures, expected, strict=True):
        assert np.abs(np.asarray(picture).astype(int) - wanted).mean() < 3


def test_idx_files_are_what_wds2idx_writes(split, tmp_path):
    pytest.importorskip("wds2idx")
    for path in split.tars:
        theirs = tmp_path / "theirs.idx"
        subprocess.run(
            [sys.executable, "-m", "wds2idx", str(path), str(theirs)],
            check=True, capture_output=True,
        )  # fmt: skip
        assert path.with_suffix(".idx").read_text() == theirs.read_text()


def test_the_standard_library_reads_a_tar(split):
    with tarfile.open(split.tars[0]) as archive:
        regular = [m for m in archive.getmembers() if m.isreg()]
        record = json.loads(archive.extractfile("__record__").read())
    names = [m.name for m in regular]
    keys = list(dict.fromkeys(name.split(".")[0] for name in names))
    assert names == [f"{k}.{e}" for k in keys for e in ("mp4", "json", "frames.npy", "cls")]
    assert record["classes"] == ["a", "b", "c"]
    assert len(record["verdicts"]) == 5


def test_a_refused_source_leaves_a_hole_and_moves_nothing(split):
    verdicts = [
        json.loads(line)
        for line in (split.root / "train" / "sources.jsonl").read_text().split("\n")[:-1]
    ]
    assert [v["tar"] for v in verdicts].count("train-000000.tar") == 5
    assert {v["key"]: v["status"] for v in verdicts}["gone"] == "missing"
    counts = (split.root / "train" / "classes.csv").read_text().splitlines()
    assert counts[0] == "label,class,listed,found,missing,broken,deferred"
    assert counts[1] == "0,a,4,3,1,0,0"


def test_the_reader_of_the_format_page_works(split):
    page = (Path(__file__).resolve().parents[3] / "docs" / "format.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    scope: dict = {}
    exec(code.replace("SHARDS/train", str(split.root / "train")), scope)
    for i in range(len(split)):
        row, data = split.samples[i], split.tar_path(i).read_bytes()
        where = split.frames[row["first_frame"] + 2]
        start = row["offset"] + where["offset"]
        assert scope["jpeg"](i, 2) == data[start : start + where["size"]]
