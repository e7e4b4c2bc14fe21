"""The classes of the demo's videos differ only in the order of events."""

from __future__ import annotations

import av
import numpy as np
import pytest
import yaml
from demo_videos import (
    EVENTS,
    ORDERS,
    Video,
    VideoSettings,
    class_names,
    draw,
    plan_split,
    plan_video,
    write_split,
)

from dsanet.engine.command_line import recipe_path
from pipelines import SamplingConfig
from pipelines.plan.sampling import test_frames as clips_of
from pipelines.plan.sampling import train_frames, val_frames

SETTINGS = VideoSettings()


@pytest.fixture(scope="module")
def sampling() -> SamplingConfig:
    return SamplingConfig(**yaml.safe_load(recipe_path("demo").read_text())["sampling"])


def events_in(video: Video, frames: np.ndarray) -> set[int]:
    """Events shown anywhere between the first and the last frame of a snippet."""
    first, last = frames.min(), frames.max()
    return {event for event, start, stop in video.intervals if start <= last and first < stop}


def test_pauses_are_longer_than_a_snippet(sampling):
    for video in plan_split(0, 240, 1, SETTINGS):
        stops = [stop for _, _, stop in video.intervals[:-1]]
        starts = [start for _, start, _ in video.intervals[1:]]
        pauses = np.subtract(starts, stops)
        assert pauses.min() >= SETTINGS.shortest_pause > (sampling.frames - 1) * sampling.stride


def test_no_snippet_shows_two_events(sampling):
    rng = np.random.default_rng(0)
    for video in plan_split(0, 60, 1, SETTINGS):
        N = SETTINGS.num_frames
        draws = rng.random((50, sampling.draws()))
        inputs = [train_frames(N, sampling, x) for x in draws]
        inputs += [val_frames(N, sampling), clips_of(N, 8, sampling)]
        shown = [events_in(video, snippet) for frames in inputs for snippet in frames]
        assert max(map(len, shown)) == 1
        assert set.union(*shown) == set(range(len(EVENTS)))


def test_every_group_of_test_clips_shows_every_event(sampling):
    for video in plan_split(1, 60, 1, SETTINGS):
        clips = clips_of(SETTINGS.num_frames, 8, sampling)
        for group in (clips[0::2], clips[1::2]):
            assert [events_in(video, clip) for clip in group] == [{e} for e in ORDERS[video.label]]


def test_classes_are_orders_of_the_same_events():
    assert len(set(ORDERS)) == len(ORDERS) == len(set(class_names()))
    assert all(sorted(order) == list(range(len(EVENTS))) for order in ORDERS)


def test_time_of_events_does_not_depend_on_the_class():
    starts = {tuple(s for _, s, _ in plan_video(label, (5, 0, 9), SETTINGS).intervals)
              for label in range(len(ORDERS))}  # fmt: skip
    assert len(starts) == 1


def test_events_are_shown_in_their_interval_alone():
    video = plan_video(0, (3, 0, 0), SETTINGS)
    frames = draw(video, SETTINGS).astype(int)
    saturated = (frames.max(axis=3) - frames.min(axis=3) > 175).mean(axis=(1, 2)) > 0.01
    inside = np.zeros(SETTINGS.num_frames, bool)
    for _, start, stop in video.intervals:
        inside[start:stop] = True
    assert (saturated == inside).mean() > 0.99


def test_a_split_is_written_as_h264_and_depends_on_its_seed_alone(tmp_path):
    for name in ("a", "b"):
        assert (
            len(list(write_split(tmp_path / name, "val", plan_split(1, 2, 7, SETTINGS), SETTINGS)))
            == 2
        )
        assert (tmp_path / name / "val.txt").read_text() == "val/0000.mp4 0\nval/0001.mp4 1\n"
    first, second = ((tmp_path / name / "val/0001.mp4").read_bytes() for name in "ab")
    assert first == second
    with av.open(str(tmp_path / "a/val/0000.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert sum(1 for _ in container.decode(stream)) == SETTINGS.num_frames
