"""ActivityNet from its list to batches: annotated segments in training, whole videos in testing."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipelines import EvalLoader, LoaderConfig, LoaderUsageError, SamplingConfig, TrainLoader
from pipelines.plan.sampling import twice_frames
from shards import ShardSettings, build_split, open_split
from shards.annotations import read_list
from tests.pipelines.loaders import ONE, SMALL

RATE, FRAMES, FIRST = 10, 200, 20
SAMPLING = SamplingConfig(segments=4, frames=2, stride=2)
MARKS = {"one": [(5.0, 11.0, "B"), (15.0, 18.0, "A")], "two": [(2.0, 20.0, "A")]}
SUBSETS = {"one": "training", "two": "training", "three": "validation"}


def clock(path: Path) -> None:
    """A grey video of 20 s: level FIRST + n in frame n."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=Fraction(RATE))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for number in range(FRAMES):
            image = np.full((48, 64, 3), FIRST + number, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="bgr0")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train` of labelled segments and `val` of whole videos."""
    folder = tmp_path_factory.mktemp("activitynet")
    (folder / "videos").mkdir()
    database = {}
    for name, subset in SUBSETS.items():
        clock(folder / "videos" / f"v_{name}.mkv")
        marks = [{"segment": [a, b], "label": c} for a, b, c in MARKS.get(name, MARKS["one"])]
        database[name] = {"subset": subset, "duration": 20.0, "annotations": marks}
    listed = folder / "activity_net.json"
    listed.write_text(json.dumps({"database": database}))
    for split, segments in (("train", "labelled"), ("val", "whole")):
        listing = read_list(
            "activitynet", folder / "videos", listed, ["A", "B"], split=split, segments=segments
        )
        settings = ShardSettings(workers=1)
        report = build_split(listing.sources, folder / "set", split, listing.classes, settings)
        assert report.exit_code == 0, report
    return folder / "set"


def frame_numbers(clips: object) -> np.ndarray:
    """Numbers of the source's frames, from their grey."""
    return np.asarray(clips, np.float64).mean(axis=(-3, -2, -1)) - FIRST


@pytest.mark.parametrize("reader", ["frames", "webdataset"])
def test_training_stays_inside_the_annotated_segment(sharded, reader):
    split = open_split(sharded, "train")
    assert len(split) == 3  # segments, not videos
    names = {"one_000": MARKS["one"][0], "one_001": MARKS["one"][1], "two_000": MARKS["two"][0]}
    loader = TrainLoader(
        split, SAMPLING, SMALL, LoaderConfig(threads=1, reader=reader), seed=1, batch_size=1
    )
    shown: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for epoch in range(20):
        for batch in loader.epoch(epoch):
            name = split.key(int(batch.ids[0]))
            assert split.classes[int(batch.labels[0])] == names[name][2]
            shown[name].append(frame_numbers(batch.clips).reshape(-1))
    loader.close()
    for name, (start, end, _) in names.items():
        frames = np.concatenate(shown[name])
        # Two levels for the JPEG.
        assert frames.min() >= RATE * start - 2
        assert frames.max() <= RATE * end - 1 + 2
        assert frames.max() - frames.min() > 0.85 * RATE * (end - start)


@pytest.mark.parametrize("reader", ["frames", "webdataset"])
def test_testing_spans_the_whole_video(sharded, reader):
    split = open_split(sharded, "val")
    assert len(split) == 1
    assert split.samples["num_frames"][0] == FRAMES
    assert sorted(split.labels(0)) == [0, 1]
    config = LoaderConfig(threads=1, reader=reader)
    loader = EvalLoader(
        split, SAMPLING, config, batch_size=1, clips=8, crops=1, crop_size=32, resize_short=32
    )
    (batch,) = loader
    clips = frame_numbers(batch.clips)[0, 0]  # (8, 2)
    loader.close()
    # Eight clips, one in each eighth of the 20 seconds.
    assert (np.floor(clips.mean(axis=1) / (FRAMES / 8)) == np.arange(8)).all()


def test_validation_spans_the_whole_video(sharded):
    loader = EvalLoader(open_split(sharded, "val"), SAMPLING, ONE, batch_size=1, crop_size=32,
                        resize_short=32)  # fmt: skip
    (batch,) = loader
    loader.close()
    middles = frame_numbers(batch.clips)[0].mean(axis=1)
    assert (np.floor(middles / (FRAMES / 4)) == np.arange(4)).all()


def test_two_passes_hold_the_planned_frames(sharded):
    loader = EvalLoader(open_split(sharded, "val"), SAMPLING, ONE, batch_size=1, clips=8, crops=1,
                        twice=True, crop_size=32, resize_short=32)  # fmt: skip
    (batch,) = loader
    loader.close()
    found = frame_numbers(batch.clips)[0, 0]
    np.testing.assert_allclose(found, twice_frames(FRAMES, SAMPLING), atol=2)
    assert found[1, 0] < 2 < found[0, 0]  # the second pass begins with the video


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clips": 4}, "clips must be 8 .2 x sampling.segments. for two passes, got 4"),
        ({"clips": 8, "config": LoaderConfig(reader="webdataset")}, "loader.reader must be frames"),
    ],
)
def test_two_passes_that_do_not_fit_are_refused(sharded, settings, message):
    settings = {"config": ONE, **settings}
    with pytest.raises(LoaderUsageError, match=message):
        EvalLoader(open_split(sharded, "val"), SAMPLING, batch_size=1, twice=True, **settings)
