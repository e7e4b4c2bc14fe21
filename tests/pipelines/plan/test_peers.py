"""The sampling modes against the rules of other projects, index by index (docs/loader.md).

Each reference is a plain loop over the project's documented rule. N is the number of frames of a
video, U clips of T frames at stride S, K test clips, L = T * S.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipelines import LoaderUsageError, SamplingConfig
from pipelines.plan.sampling import test_frames as frames_of_clips
from pipelines.plan.sampling import train_frames, twice_frames, val_frames

LENGTHS = [*range(1, 140), 200, 250, 299, 300, 301, 1000, 1511]
CLIP_SHAPES = [(4, 16), (8, 8), (4, 8), (16, 4), (32, 2)]  # T, S


def mmaction2_test(N: int, T: int, S: int, K: int) -> list[list[int]]:
    """SampleFrames of mmaction2 1.x in test mode, for clips of several frames."""
    room = max(N - ((T - 1) * S + 1), 0)
    starts = [round(k * (room / (K - 1))) for k in range(K)] if K > 1 else [room // 2]
    return [[(start + t * S) % N for t in range(T)] for start in starts]


def mmaction2_train(N: int, T: int, S: int, U: int, draws: list[float]) -> list[list[int]]:
    """SampleFrames of mmaction2 in training, with its random integers from `draws`."""
    L = T * S
    average = (N - L + 1) // U
    if average > 0:
        starts = [u * average + int(draws[u] * average) for u in range(U)]
    elif max(U, L) < N:
        starts = sorted(int(draws[u] * (N - L + 1)) for u in range(U))
    elif average == 0:
        starts = [round(u * ((N - L + 1) / U)) for u in range(U)]
    else:
        starts = [0] * U
    return [[(start + t * S) % N for t in range(T)] for start in starts]


def mmaction2_0_test(N: int, T: int, S: int, K: int, twice: bool = False) -> list[list[int]]:
    """SampleFrames of mmaction2 0.x in test mode: the rule of the release, modulo N."""
    L = T * S
    tick = (N - L + 1) / float(K)
    starts = [0] * (2 * K if twice else K)
    if L - 1 < N:
        starts = [int(k * tick + tick / 2.0) for k in range(K)]
        starts += [int(k * tick) for k in range(K)] if twice else []
    return [[(start + t * S) % N for t in range(T)] for start in starts]


def pyslowfast(N: int, T: int, S: int, start: float) -> list[int]:
    """The frames of a clip that starts at `start`, by PySlowFast's temporal_sampling."""
    index = torch.linspace(start, start + T * S - 1, T)
    return torch.clamp(index, 0, N - 1).long().tolist()


def pyslowfast_test(N: int, T: int, S: int, K: int) -> list[list[int]]:
    """PySlowFast's K views with its default, USE_OFFSET_SAMPLING False."""
    return [pyslowfast(N, T, S, max(N - T * S, 0) * k / K) for k in range(K)]


def tsn_twice(N: int, T: int) -> tuple[list[int], list[int]]:
    """TSM's --twice_sample with T segments of one frame."""
    tick = N / float(T)
    return [int(tick / 2.0 + tick * t) for t in range(T)], [int(tick * t) for t in range(T)]


@pytest.mark.parametrize(("frames", "stride"), CLIP_SHAPES)
def test_mmaction2_views(frames: int, stride: int) -> None:
    config = SamplingConfig(segments=1, frames=frames, stride=stride, mode="mmaction2")
    for N in LENGTHS:
        for clips in (1, 2, 10):
            expected = mmaction2_test(N, frames, stride, clips)
            assert frames_of_clips(N, clips, config).tolist() == expected


@pytest.mark.parametrize(("frames", "stride"), CLIP_SHAPES)
def test_mmaction2_views_reach_from_the_first_frame_to_the_last(frames: int, stride: int) -> None:
    config = SamplingConfig(segments=1, frames=frames, stride=stride, mode="mmaction2")
    clips = frames_of_clips(300, 10, config)
    assert clips[0, 0] == 0
    assert clips[-1, -1] == 299


@pytest.mark.parametrize("segments", [1, 4])
def test_mmaction2_training(segments: int) -> None:
    config = SamplingConfig(segments=segments, frames=8, stride=8, mode="mmaction2")
    for N in LENGTHS:
        draws = np.random.default_rng(N).random(segments)
        expected = mmaction2_train(N, 8, 8, segments, draws.tolist())
        assert train_frames(N, config, draws).tolist() == expected


@pytest.mark.parametrize(("frames", "stride"), CLIP_SHAPES)
def test_pyslowfast_views(frames: int, stride: int) -> None:
    config = SamplingConfig(segments=1, frames=frames, stride=stride, mode="pyslowfast")
    for N in LENGTHS:
        for clips in (1, 5, 10):
            expected = pyslowfast_test(N, frames, stride, clips)
            assert frames_of_clips(N, clips, config).tolist() == expected


def test_pyslowfast_views_end_before_the_video_and_step_over_nine_frames() -> None:
    config = SamplingConfig(segments=1, frames=8, stride=8, mode="pyslowfast")
    clips = frames_of_clips(300, 10, config)
    assert clips[0].tolist() == [0, 9, 18, 27, 36, 45, 54, 63]
    assert clips[-1, -1] == math.floor(0.9 * (300 - 64)) + 63 == 275


@pytest.mark.parametrize(("frames", "stride"), CLIP_SHAPES)
def test_pyslowfast_training(frames: int, stride: int) -> None:
    config = SamplingConfig(segments=1, frames=frames, stride=stride, mode="pyslowfast")
    for N in LENGTHS:
        x = float(np.random.default_rng(N).random())
        start = x * max(N - frames * stride, 0)
        expected = pyslowfast(N, frames, stride, start)
        assert train_frames(N, config, np.array([x])).tolist() == [expected]


def test_pyslowfast_validates_on_centred_clips() -> None:
    config = SamplingConfig(segments=1, frames=8, stride=8, mode="pyslowfast")
    assert val_frames(300, config).tolist() == [pyslowfast(300, 8, 8, (300 - 64) / 2)]


@pytest.mark.parametrize("clips", [4, 8, 10])
def test_release_equals_mmaction2_0_where_a_clip_fits(clips: int) -> None:
    config = SamplingConfig(frames=8, stride=8, mode="release")
    for N in LENGTHS:
        equal = frames_of_clips(N, clips, config).tolist() == mmaction2_0_test(N, 8, 8, clips)
        # In shorter videos mmaction2 begins again at frame 0, the release repeats the last frame.
        assert equal == (N >= 57 or N == 1)


@pytest.mark.parametrize(("mode", "frames"), [("uniform", 8), ("uniform", 16)])
def test_two_passes_equal_tsm(mode: str, frames: int) -> None:
    config = SamplingConfig(segments=1, frames=frames, mode=mode)  # type: ignore[arg-type]
    for N in LENGTHS:
        assert twice_frames(N, config).tolist() == list(tsn_twice(N, frames))


@pytest.mark.parametrize(("mode", "N"), [("segments", 300), ("release", 300), ("spread", 45)])
def test_two_passes_alternate_between_centres_and_starts(mode: str, N: int) -> None:
    config = SamplingConfig(mode=mode)  # type: ignore[arg-type]
    clips = twice_frames(N, config)
    assert clips[0::2].tolist() == val_frames(N, config).tolist()
    starts = train_frames(N, config, np.zeros(4))
    if mode == "release":
        expected = mmaction2_0_test(N, 4, 8, 4, twice=True)
        assert clips[0::2].tolist() + clips[1::2].tolist() == expected
    else:
        assert clips[1::2].tolist() == starts.tolist()
        assert clips[1, 0] == 0


@pytest.mark.parametrize("mode", ["dense", "mmaction2", "pyslowfast"])
def test_two_passes_need_segments(mode: str) -> None:
    with pytest.raises(LoaderUsageError, match=r"^sampling.mode must be one of segments, .*, got "):
        twice_frames(300, SamplingConfig(mode=mode))  # type: ignore[arg-type]


def test_a_random_start_of_tsm_is_never_the_last_one() -> None:
    """TSM draws below N - 64, `dense` below N - 64 + 1, so that the last frame is drawn too."""
    N, config = 100, SamplingConfig(segments=1, frames=8, stride=8, mode="dense")
    starts = {
        int(train_frames(N, config, np.array([x]))[0, 0]) for x in np.linspace(0, 1, 999)[:-1]
    }
    assert starts == set(range(N - 64 + 1))
    tsm = set(range(max(1, 1 + N - 64) - 1))  # randint(0, positions - 1) excludes its upper end
    assert starts - tsm == {N - 64}


def test_tsm_and_tsn_never_train_on_the_tail() -> None:
    """They draw below floor(N / T) in each part; `uniform` draws in parts that cover the video."""
    N, T = 47, 8
    duration = N // T
    reached = {t * duration + draw for t in range(T) for draw in range(duration)}
    config = SamplingConfig(segments=1, frames=T, mode="uniform")
    ours = {
        int(f)
        for x in np.linspace(0, 1, 99)[:-1]
        for f in train_frames(N, config, np.full(T, x))[0]
    }
    assert ours - reached == set(range(40, 47))
