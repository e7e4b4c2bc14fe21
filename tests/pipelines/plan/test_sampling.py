"""Frame numbers against tables computed by hand and against loops of other code bases."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines import LoaderUsageError, SamplingConfig
from pipelines.plan import sampling as s

MODES = ("segments", "release", "dense", "uniform", "spread", "mmaction2", "pyslowfast")
HALF = np.full(64, 0.5)


def release_train(N: int, L: int, U: int, T: int, S: int, draws: list[float]) -> list[list[int]]:
    """The training loop of the released code, with its random integers from `draws`."""
    draw = iter(draws)

    def randint(low: int, high: int) -> int:
        return low + int(next(draw) * (high - low))

    average = (N - L + 1) // U
    if average > 0:
        starts = [u * average + randint(0, average) for u in range(U)]
    elif max(U, L) < N:
        starts = sorted(randint(0, N - L + 1) for _ in range(U))
    else:
        starts = [0] * U
    return [[min(start + t * S, N - 1) for t in range(T)] for start in starts]


def release_test(N: int, L: int, clips: int, T: int, S: int) -> list[list[int]]:
    """The test loop of the released code."""
    tick = (N - L + 1) / float(clips)
    starts = [int(tick / 2.0 + tick * k) if tick > 0 else 0 for k in range(clips)]
    return [[min(start + t * S, N - 1) for t in range(T)] for start in starts]


def test_paper_kinetics_table():
    # 300 frames, U 4: segments of 75; windows of 32 start at 0..43 of each, by hand:
    # floor(0.0 * 44) = 0, floor(0.5 * 44) = 22, floor(0.25 * 44) = 11, floor(0.999 * 44) = 43.
    frames = s.train_frames(300, SamplingConfig(), np.array([0.0, 0.5, 0.25, 0.999]))
    assert frames.tolist() == [
        [0, 8, 16, 24],
        [97, 105, 113, 121],
        [161, 169, 177, 185],
        [268, 276, 284, 292],
    ]


def test_paper_kinetics_table_of_eight_frames():
    # T 8: windows of 64 start at 0..11 of each segment of 75.
    config = SamplingConfig(frames=8)
    frames = s.train_frames(300, config, np.array([0.0, 0.99, 0.5, 0.5]))
    assert frames[:, 0].tolist() == [0, 75 + 11, 150 + 6, 225 + 6]
    assert (np.diff(frames) == 8).all()


def test_paper_validation_is_the_centre_of_each_segment():
    frames = s.val_frames(300, SamplingConfig())
    assert frames[:, 0].tolist() == [22, 97, 172, 247]
    assert (frames[:, 0] + 16 == np.array([38, 113, 188, 263])).all()  # of 37.5, 112.5, ...


def test_frames_are_centred_in_a_wide_window():
    config = SamplingConfig(frames=4, stride=8, window=64)
    frames = s.train_frames(300, config, np.zeros(4))
    assert frames[0].tolist() == [16, 24, 32, 40]
    last = s.train_frames(300, config, np.full(4, 0.9999))
    assert last[0].tolist() == [27, 35, 43, 51]  # the window 11..74 ends with its segment


def test_something_something_spreads_over_segments():
    # 45 frames: segments of 11, 11, 11 and 12 frames, a step of 2.75, shifted by half a step.
    frames = s.val_frames(45, SamplingConfig())
    assert frames.tolist() == [
        [1, 4, 6, 9],
        [12, 15, 17, 20],
        [23, 26, 28, 31],
        [34, 37, 40, 43],
    ]
    assert (s.val_frames(45, SamplingConfig(mode="spread")) == frames).all()
    assert len(np.unique(frames)) == 16


def test_spread_mode_also_spreads_in_long_videos():
    frames = s.val_frames(400, SamplingConfig(mode="spread"))
    assert frames[1].tolist() == [112, 137, 162, 187]


@pytest.mark.parametrize("num_frames", [*range(1, 140), 299, 300, 301, 2000])
@pytest.mark.parametrize("mode", MODES)
def test_frames_are_inside_videos_of_every_length(num_frames, mode):
    generator = np.random.default_rng(num_frames)
    config = SamplingConfig(mode=mode)
    for draws in (np.zeros(16), np.full(16, 1 - 2**-53), generator.random(16)):
        frames = s.train_frames(num_frames, config, draws)
        assert frames.shape == (4, 4)
        assert 0 <= frames.min() <= frames.max() < num_frames
    assert s.val_frames(num_frames, config).shape == (4, 4)
    for clips in (1, 4, 8, 10) if mode != "uniform" else (4, 8):
        frames = s.test_frames(num_frames, clips, config)
        assert frames.shape == (clips, 4)
        assert 0 <= frames.min() <= frames.max() < num_frames


@pytest.mark.parametrize("num_frames", range(4, 300, 3))
def test_snippets_stay_apart_and_in_order(num_frames):
    generator = np.random.default_rng(num_frames)
    for _ in range(5):
        frames = s.train_frames(num_frames, SamplingConfig(), generator.random(4))
        assert (frames[:-1, -1] < frames[1:, 0]).all()
        bounds = num_frames * np.arange(5) / 4
        assert (frames >= np.floor(bounds[:-1, None])).all()
        assert (frames < np.ceil(bounds[1:, None])).all()


def test_every_start_is_equally_likely():
    draws = (np.arange(4400) + 0.5) / 4400
    starts = [s.train_frames(300, SamplingConfig(), np.full(4, x))[1, 0] for x in draws]
    values, counts = np.unique(starts, return_counts=True)
    assert values.tolist() == list(range(75, 119))
    assert (counts == 100).all()


@pytest.mark.parametrize("num_frames", [1, 5, 33, 40, 66, 67, 68, 100, 300, 301])
@pytest.mark.parametrize("frames", [4, 8])
def test_release_mode_equals_the_released_code(num_frames, frames):
    config = SamplingConfig(frames=frames, mode="release")
    draws = np.random.default_rng(num_frames).random(4)
    assert s.train_frames(num_frames, config, draws).tolist() == release_train(
        num_frames, frames * 8, 4, frames, 8, draws.tolist()
    )
    for clips in (4, 8, 10):
        expected = release_test(num_frames, frames * 8, clips, frames, 8)
        assert s.test_frames(num_frames, clips, config).tolist() == expected
    assert s.val_frames(num_frames, config).tolist() == release_test(
        num_frames, frames * 8, 4, frames, 8
    )


def test_release_table():
    config = SamplingConfig(frames=8, mode="release")
    # 300 frames: a = (300 - 64 + 1) // 4 = 59.
    frames = s.train_frames(300, config, np.array([0.0, 0.5, 0.99, 0.1]))
    assert frames[:, 0].tolist() == [0, 59 + 29, 118 + 58, 177 + 5]
    # 66 frames: a = 0 and N > L: sorted starts in [0, 2].
    frames = s.train_frames(66, config, np.array([0.9, 0.0, 0.5, 0.9]))
    assert frames[:, 0].tolist() == [0, 1, 2, 2]
    # 8 clips over 300 frames: tick 29.625.
    starts = s.test_frames(300, 8, config)[:, 0]
    assert starts.tolist() == [14, 44, 74, 103, 133, 162, 192, 222]


@pytest.mark.parametrize("num_frames", [140, 200, 300, 1000])
def test_test_clips_of_long_videos_equal_the_released_codes(num_frames):
    ours = s.test_frames(num_frames, 8, SamplingConfig())
    assert ours.tolist() == release_test(num_frames, 32, 8, 4, 8)


@pytest.mark.parametrize("num_frames", [20, 45, 100, 127])
def test_test_clips_of_short_videos_have_the_step_of_training(num_frames):
    config = SamplingConfig()
    trained = np.diff(s.train_frames(num_frames, config, HALF)).mean()
    tested = np.diff(s.test_frames(num_frames, 8, config)).mean()
    assert tested == pytest.approx(trained, abs=0.35)


def test_groups_of_clips_span_the_video():
    for mode in ("segments", "release", "spread", "uniform", "dense"):
        frames = s.test_frames(300, 8, SamplingConfig(mode=mode)).reshape(4, 2, 4)
        for group in range(2):  # clips g, g + 2, g + 4, g + 6
            part = frames[:, group].mean(axis=1) / 300
            assert (np.diff(part) > 0.1).all()


@pytest.mark.parametrize("num_frames", [1, 7, 40, 63, 64, 65, 300])
def test_dense_mode_equals_tsm(num_frames):
    config = SamplingConfig(segments=1, frames=8, stride=8, mode="dense")
    positions = max(1, 1 + num_frames - 64)
    expected = [
        [(t * 8 + start) % num_frames for t in range(8)]
        for start in np.linspace(0, positions - 1, num=10, dtype=int)
    ]
    assert s.test_frames(num_frames, 10, config).tolist() == expected
    start = 0 if positions == 1 else int(0.3 * positions)
    assert s.train_frames(num_frames, config, np.array([0.3])).tolist() == [
        [(t * 8 + start) % num_frames for t in range(8)]
    ]


@pytest.mark.parametrize("num_frames", [9, 16, 45, 300, 301])
def test_uniform_mode_equals_tsn(num_frames):
    config = SamplingConfig(segments=1, frames=8, mode="uniform")
    tick = num_frames / 8.0
    centres = [int(tick / 2.0 + tick * x) for x in range(8)]
    assert s.val_frames(num_frames, config).tolist() == [centres]
    assert s.test_frames(num_frames, 1, config).tolist() == [centres]
    first = s.train_frames(num_frames, config, np.zeros(8))
    assert first.tolist() == [[int(tick * x) for x in range(8)]]


def test_uniform_with_segments_is_tsn_in_groups():
    config = SamplingConfig(segments=4, frames=2, mode="uniform")
    tsn = SamplingConfig(segments=1, frames=8, mode="uniform")
    assert s.val_frames(300, config).reshape(-1).tolist() == s.val_frames(300, tsn)[0].tolist()
    clips = s.test_frames(300, 4, config)
    assert clips.tolist() == s.val_frames(300, config).tolist()


@pytest.mark.parametrize(
    "settings",
    [{"mode": "dance"}, {"frames": 0}, {"stride": 0}, {"segments": 0}, {"window": 24}],
)
def test_wrong_settings_are_refused(settings):
    name = next(iter(settings))
    with pytest.raises(LoaderUsageError, match=rf"^sampling\.{name} must .*, got "):
        SamplingConfig(**settings)


def test_wrong_numbers_of_clips_are_refused():
    with pytest.raises(LoaderUsageError, match="clips must be at least 1, got 0"):
        s.test_frames(100, 0, SamplingConfig())
    with pytest.raises(LoaderUsageError, match="multiple of 4"):
        s.test_frames(100, 10, SamplingConfig(mode="uniform"))
