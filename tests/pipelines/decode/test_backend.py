"""All decoders give the same frames within a tolerance; settings that cannot work are refused."""

from __future__ import annotations

import io
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from pipelines import (
    AugmentConfig,
    EvalLoader,
    LoaderConfig,
    LoaderError,
    OrderConfig,
    Rank,
    SamplingConfig,
    TrainLoader,
)
from pipelines.decode.backend import choose_decode, graph_spec
from pipelines.plan.sampling import val_frames
from pipelines.read.gops import ContainerReader, decode_with_pyav, packets_needed
from pipelines.watchdog import Activity
from shards import Split

# Mean and largest difference in levels of 255: libjpeg-turbo and FFmpeg upsample chroma
# differently, which shows at the edges of the saturated square.
MEAN, LARGEST = 2.5, 90
CODECS = ("mjpeg", "vp9", "h264", "hevc")
CPU = [
    ("mjpeg", "image"),
    ("mjpeg", "video"),
    ("mjpeg", "pyav"),
    ("vp9", "video"),
    ("vp9", "pyav"),
    ("h264", "pyav"),
    ("hevc", "pyav"),
]
GPU = [*[pair for pair in CPU if pair[1] != "pyav"], ("h264", "video"), ("hevc", "video")]


def plain_decode(split: Split, sample: int) -> np.ndarray:
    """Every frame of the whole stored file by PyAV."""
    row = split.samples[sample]
    with open(split.tar_path(sample), "rb") as file:
        file.seek(int(row["offset"]))
        data = file.read(int(row["size"]))
    with av.open(io.BytesIO(data)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def check_against_plain_decode(split: Split, device: str, **settings: object) -> None:
    """Centred squares, not resized, through EvalLoader against the plain decode."""
    short = np.minimum(split.samples["height"], split.samples["width"])
    side = int(short.min())  # a larger video would be resized, and so is not compared
    loader = EvalLoader(
        split,
        SamplingConfig(),
        LoaderConfig(threads=1, **settings),  # type: ignore[arg-type]
        batch_size=2,
        crop_size=side,
        resize_short=side,
        rank=Rank(device=device),
    )
    compared = 0
    for batch in loader:
        for clips, sample in zip(batch.clips.cpu(), batch.ids, strict=True):
            if sample < 0 or short[sample] != side:
                continue
            whole = plain_decode(split, sample)
            frames = whole[val_frames(len(whole), SamplingConfig()).reshape(-1)]
            y, x = (np.array(frames.shape[1:3]) - side) // 2
            expected = frames[:, y : y + side, x : x + side].astype(int)
            error = abs(clips.reshape(expected.shape).numpy() - expected)
            assert error.max() <= LARGEST
            assert error.mean(axis=(1, 2, 3)).max() <= MEAN
            compared += 1
    assert compared >= 6
    assert not loader.missing
    loader.close()


@pytest.mark.parametrize(("codec", "decode"), CPU)
def test_decoders_agree_on_the_cpu(split_of, codec, decode):
    check_against_plain_decode(split_of(codec), "cpu", decode=decode)


@pytest.mark.gpu
@pytest.mark.parametrize(("codec", "decode"), GPU)
def test_decoders_agree_on_the_gpu(large_split_of, codec, decode):
    check_against_plain_decode(large_split_of(codec), "cuda:0", decode=decode)


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [{"decode_on": "cpu"}, {"roi_decode": True}])
def test_other_settings_on_the_gpu(split_of, settings):
    check_against_plain_decode(split_of("mjpeg"), "cuda:0", **settings)


def train_batches(split: Split, device: str, **settings: object) -> list[torch.Tensor]:
    loader = TrainLoader(
        split,
        SamplingConfig(),
        AugmentConfig(size=48, short_sides=(64, 80), brightness=0.3, hue=0.1),
        LoaderConfig(threads=1, **settings),  # type: ignore[arg-type]
        seed=1,
        batch_size=4,
        rank=Rank(device=device),
    )
    clips = [batch.clips.cpu() for batch in loader.epoch(0)]
    loader.close()
    return clips


def difference(one: list[torch.Tensor], other: list[torch.Tensor]) -> tuple[float, float]:
    error = (torch.cat(one).float() - torch.cat(other).float()).abs()
    return float(error.mean()), float(error.max())


@pytest.mark.parametrize("decode", ["video", "pyav"])
@pytest.mark.parametrize("resize", ["torch", "dali"])
def test_training_views_agree_across_decoders(split_of, decode, resize):
    split = split_of("mjpeg")
    reference = train_batches(split, "cpu", decode="image", resize="torch")
    mean, _ = difference(reference, train_batches(split, "cpu", decode=decode, resize=resize))
    assert mean <= MEAN


@pytest.mark.gpu
def test_training_views_agree_between_cpu_and_gpu(split_of):
    split = split_of("mjpeg")
    mean, _ = difference(train_batches(split, "cpu"), train_batches(split, "cuda:0"))
    assert mean <= MEAN


@pytest.mark.gpu
def test_gpu_batches_are_reproducible(split_of):
    first, second = (train_batches(split_of("mjpeg"), "cuda:0") for _ in range(2))
    assert difference(first, second) == (0.0, 0.0)


@pytest.mark.gpu
def test_a_gpu_batch_is_not_overwritten_by_later_ones(split):
    loader = TrainLoader(
        split, SamplingConfig(), AugmentConfig(), LoaderConfig(), seed=1, batch_size=4,
        rank=Rank(device="cuda:0"),
    )  # fmt: skip
    weight = torch.randn(4096, 4096, device="cuda")
    sums = []
    for epoch in range(4):
        for batch in loader.epoch(epoch):
            # The GPU lags behind by tens of milliseconds, so several batches are decoded before it
            # sums this one; all of it is only launched.
            for _ in range(30):
                weight = torch.nn.functional.normalize(weight @ weight)
            sums.append(batch.clips.sum())
            del batch  # only the loader keeps the memory
    totals = [int(total) for total in sums]
    expected = []
    for epoch in range(4):
        for batch in loader.epoch(epoch):
            expected.append(int(batch.clips.sum()))  # waits for the GPU
    assert totals == expected
    loader.close()


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9"])
def test_pruning_gives_the_frames_of_the_whole_file(split_of, codec):
    split = split_of(codec)
    source = ContainerReader(split, Activity(), threads=1)
    generator = np.random.default_rng(0)
    for sample in range(len(split)):
        whole = plain_decode(split, sample)
        for _ in range(4):
            frames = np.sort(generator.integers(0, len(whole), 5))
            container = source.fetch([sample], [frames])[0]
            assert len(np.unique(container.picks)) == len(container.picks)
            decoded = decode_with_pyav(container, "here", whole.shape[1:3])
            assert (decoded == whole[frames]).all()
    long = int(np.argmax(split.samples["num_frames"]))
    size = len(source.fetch([long], [np.array([40, 41])])[0].data)
    assert size < 0.5 * split.samples["size"][long]
    source.close()


def test_what_follows_the_last_wanted_frame_of_a_group_is_not_decoded():
    packets = [SimpleNamespace(number=n, is_keyframe=n % 4 == 0) for n in range(14)]
    numbers = [packet.number for packet in packets_needed(packets, {2, 4, 9, 10, 13})]
    assert numbers == [0, 1, 2, 4, 8, 9, 10, 12, 13]
    assert packets_needed(packets, set()) == []


def test_the_choice_of_a_decoder():
    auto = LoaderConfig()
    assert [choose_decode(codec, "cpu", auto) for codec in CODECS] == [
        "image",
        "video",
        "pyav",
        "pyav",
    ]
    assert [choose_decode(codec, "cuda:0", auto) for codec in CODECS] == ["image"] + ["video"] * 3
    for codec, settings, message in (
        ("h264", {"decode": "image"}, r"loader\.decode must be video or pyav for h264 shards"),
        ("h264", {"decode": "video"}, r"loader\.decode must be pyav for h264 shards on a CPU"),
        ("h264", {"decode": "video", "decode_on": "cpu"}, r"loader\.decode must be pyav"),
        ("h264", {"reader": "webdataset"}, r"loader\.reader must be frames for h264 shards"),
    ):
        with pytest.raises(LoaderError, match=message):
            choose_decode(codec, "cpu", LoaderConfig(**settings))


@pytest.mark.parametrize(
    ("decode", "device", "settings", "threads"),
    [
        ("image", "cpu", {}, 16),
        ("image", "cuda:0", {}, 4),
        ("video", "cuda:0", {}, 8),
        ("image", "cuda:0", {"decode_on": "cpu"}, 16),
        ("image", "cuda:0", {"threads": 24}, 24),
    ],
)
def test_threads_follow_who_decodes(monkeypatch, decode, device, settings, threads):
    monkeypatch.setattr("pipelines.decode.backend.usable_cores", lambda: 32)
    config = LoaderConfig(**settings)
    assert graph_spec(decode, device, config, videos=1, frames=1, size=8).threads == threads
    monkeypatch.setattr("pipelines.decode.backend.usable_cores", lambda: 2)
    if not config.threads:
        assert graph_spec(decode, device, config, videos=1, frames=1, size=8).threads == 2


WRONG = [
    {"decode": "jpeg"},
    {"threads": -1},
    {"bad_share": 2.0},
    {"reader": "tar"},
    {"prefetch": 0},
    {"watchdog": 0.0},
]


@pytest.mark.parametrize(
    "settings",
    [
        {"decode": "pyav"},
        {"order": OrderConfig("blocked")},
        {"gap_kb": 64},
        {"roi_decode": True},
    ],
)
def test_the_webdataset_reader_refuses_settings_it_would_ignore(settings):
    name = next(iter(settings))
    with pytest.raises(LoaderError, match=rf"^loader\.{name}\S* must .* loader\.reader webdataset"):
        LoaderConfig(reader="webdataset", **settings)


def test_pyav_does_not_decode_on_a_gpu():
    config = LoaderConfig(decode="pyav", decode_on="gpu")
    with pytest.raises(
        LoaderError, match=r"loader\.decode_on must be auto or cpu with loader\.decode pyav"
    ):
        graph_spec("pyav", "cuda:0", config, videos=1, frames=1, size=8)


@pytest.mark.parametrize("settings", WRONG)
def test_wrong_settings_are_refused(settings):
    name = next(iter(settings))
    with pytest.raises(LoaderError, match=rf"^loader\.{name} must .*, got "):
        LoaderConfig(**settings)


def test_decoding_on_a_missing_gpu_is_refused(split):
    with pytest.raises(LoaderError, match=r"loader\.decode_on must .* without a CUDA device"):
        EvalLoader(split, SamplingConfig(), LoaderConfig(decode_on="gpu"), batch_size=1)
