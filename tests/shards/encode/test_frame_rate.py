"""The constant frame rate: against FFmpeg's fps filter, and rates read from timestamps."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from av.filter import Graph

from shards.encode.frame_rate import SlotCounter, is_constant, native_rate
from shards.errors import BadVideo


def fps_filter(milliseconds: list[int], rate: Fraction) -> list[int]:
    """How often each frame comes out of FFmpeg's own fps filter."""
    graph = Graph()
    source = graph.add("buffer", "video_size=16x16:pix_fmt=gray:time_base=1/1000")
    sink = graph.add("buffersink")
    graph.link_nodes(source, graph.add("fps", f"fps={rate}:round=near"), sink).configure()
    counts = [0] * len(milliseconds)

    def pull() -> None:
        while True:
            try:
                counts[graph.vpull().to_ndarray()[0, 0]] += 1
            except (av.BlockingIOError, av.EOFError):
                return

    for number, pts in enumerate(milliseconds):
        frame = av.VideoFrame.from_ndarray(np.full((16, 16), number, np.uint8), format="gray")
        frame.pts, frame.time_base = pts, Fraction(1, 1000)
        graph.push(frame)
        pull()
    graph.push(None)
    pull()
    return counts


def ours(milliseconds: list[int], rate: Fraction) -> list[int]:
    slots = SlotCounter(rate)
    slots.start(milliseconds[0] / 1000)
    return [slots.count_slots(pts / 1000) for pts in milliseconds[1:]]


@pytest.mark.parametrize("rate", [Fraction(30), Fraction(25), Fraction(12), Fraction(30000, 1001)])
@pytest.mark.parametrize("seed", range(5))
def test_the_same_slots_as_the_fps_filter(rate, seed):
    gaps = np.random.default_rng(seed).integers(1, 120, 60)
    times = [0, *(int(t) for t in np.cumsum(gaps))]
    assert ours(times, rate) == fps_filter(times, rate)[:-1]


def test_exact_keeps_every_frame_once():
    slots = SlotCounter(Fraction(30), exact=True)
    slots.start(0.0)
    assert [slots.count_slots(t) for t in (0.04, 0.041, 0.3)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("rate", "unit"),
    [
        (Fraction(30), 1000),
        (Fraction(30000, 1001), 1000),
        (Fraction(12), 90000),
        (Fraction(60), 1000),
    ],
)
def test_native_rate_of_rounded_timestamps(rate, unit):
    times = [round(i / rate * unit) / unit for i in range(300)]
    assert native_rate(times, None) == rate
    assert is_constant(times, rate)


def test_native_rate_of_a_variable_stream_is_the_common_one():
    times = np.cumsum([0.0, *([1 / 30] * 20), 0.5, *([1 / 30] * 20)]).tolist()
    assert native_rate(times, Fraction(90000)) == 30


@pytest.mark.parametrize(("guess", "rate"), [(Fraction(24), 24), (None, 25), (Fraction(90000), 25)])
def test_a_single_frame_has_the_rate_of_the_container_if_that_is_plausible(guess, rate):
    assert native_rate([0.0], guess) == rate


def test_a_gap_that_no_video_has_is_refused():
    slots = SlotCounter(Fraction(30))
    slots.start(0.0)
    with pytest.raises(BadVideo, match="gap"):
        slots.count_slots(1e9)
