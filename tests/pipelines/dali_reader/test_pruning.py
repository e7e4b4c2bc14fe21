"""Pruning in the graph against the pruning in NumPy, and against decoding the whole file."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines import AugmentConfig, SamplingConfig
from pipelines.dali_reader.decode_graph import StreamBatch, StreamDecoder
from pipelines.dali_reader.pruning import prune_frames, prune_groups, read_table, unrepeated
from pipelines.dali_reader.reader_graph import StreamSpec, build_reader, run_reader
from pipelines.decode.graph import GraphSpec, dali
from pipelines.read.gops import ContainerReader
from pipelines.watchdog import Activity
from shards import Split
from tests.pipelines.conftest import LARGE, made_once

LENGTHS = [*range(1, 10), 31, 32, 33, 64, 127, 128, 130, 299, 300]
CENTRE = AugmentConfig(size=64, kind="centre", flip=0.0)
SAMPLINGS = {
    "apart": SamplingConfig(),
    "wide": SamplingConfig(segments=8, frames=8, stride=2, window=20),
    "single": SamplingConfig(segments=1, frames=1, stride=1),
}


@pytest.fixture(scope="session")
def lengths_of(video_folder: Path) -> Callable[[str], Split]:
    """A function: codec -> a split of videos of 1 to 300 frames."""
    return made_once(video_folder / "lengths", LENGTHS)


@pytest.fixture(scope="session")
def large_of(video_folder: Path) -> Callable[[str], Split]:
    """A function: codec -> a split of fewer and larger videos, for a GPU."""
    return made_once(video_folder / "large-lengths", LENGTHS[::2], LARGE)


def stored(split: Split, sample: int) -> tuple[np.ndarray, np.ndarray]:
    """The mp4 and the frames.npy of a sample (uint8)."""
    row = split.samples[sample]
    with open(split.tar_path(sample), "rb") as file:
        file.seek(int(row["offset"]))
        data = file.read(int(row["size"]))
    table = io.BytesIO()
    np.save(table, split.frames[int(row["first_frame"]) :][: int(row["num_frames"])])
    return tuple(np.frombuffer(raw, np.uint8) for raw in (data, table.getvalue()))


def in_the_graph(
    split: Split, frames: list[np.ndarray], files: list[tuple[np.ndarray, np.ndarray]]
) -> list[list[np.ndarray]]:
    """Outputs of the graph for files: mp4, picks, number of picks, gather, JPEG bytes, sizes."""
    count = len(frames[0])

    @dali().pipeline_def(
        batch_size=len(files), num_threads=1, device_id=None, prefetch_queue_depth=1
    )
    def graph():
        fn, types = dali().fn, dali().types
        encoded, table = (
            fn.external_source(name=name, dtype=types.UINT8, ndim=1) for name in ("mp4", "table")
        )
        wanted = fn.external_source(name="frames", dtype=types.INT32, ndim=1)
        rows = read_table(table)
        picks, unique, gather = unrepeated(wanted, count)
        data, inside = prune_groups(encoded, rows, picks, count, split.gop)
        return data, inside, unique, gather, *prune_frames(encoded, rows, wanted, count)

    pipeline = graph()
    pipeline.build()
    for name, values in (
        ("mp4", [mp4 for mp4, _ in files]),
        ("table", [table for _, table in files]),
        ("frames", [numbers.astype(np.int32) for numbers in frames]),
    ):
        pipeline.feed_input(name, values)
    pipeline.schedule_run()
    return [[np.asarray(sample) for sample in output] for output in pipeline.outputs()]


@pytest.mark.parametrize("codec", ["vp9", "h264", "hevc"])
@pytest.mark.parametrize("count", [1, 16])
@pytest.mark.parametrize("order", ["random", "ascending", "one group", "ends"])
def test_the_graph_prunes_as_the_default_reader(lengths_of, codec, count, order):
    split = lengths_of(codec)
    source = ContainerReader(split, Activity(), threads=1)
    generator = np.random.default_rng(count)
    frames = []
    for n in split.samples["num_frames"].tolist():
        drawn = {
            "random": generator.integers(0, n, count),
            "ascending": np.sort(generator.integers(0, n, count)),
            "one group": n // 2 - generator.integers(0, 2, count) * (n > 1),
            "ends": np.where(generator.random(count) < 0.5, 0, n - 1),
        }[order]
        frames.append(drawn)
    files = [stored(split, sample) for sample in range(len(split))]
    data, picks, unique, gather, pieces, sizes = in_the_graph(split, frames, files)
    for sample, wanted in enumerate(frames):
        container = source.fetch([sample], [wanted])[0]
        assert np.array_equal(data[sample], container.data)
        assert picks[sample][: int(unique[sample])].tolist() == container.picks.tolist()
        assert gather[sample].tolist() == container.gather.tolist()
        rows = split.frames[int(split.samples["first_frame"][sample]) + wanted]
        mp4 = files[sample][0]
        expected = [mp4[row["offset"] :][: row["size"]] for row in rows]
        assert np.array_equal(pieces[sample], np.concatenate(expected))
        assert sizes[sample].tolist() == rows["size"].tolist()
    source.close()


def test_a_damaged_table_or_file_affects_no_other_video(lengths_of):
    split = lengths_of("vp9")
    long = int(np.argmax(split.samples["num_frames"]))
    mp4, table = stored(split, long)
    wild = table.copy()
    wild[-36:] = 255  # offsets of the last frames
    files = [
        (mp4, table), (mp4, wild), (mp4[:900], table), (mp4[:5], table),
        (np.zeros_like(mp4), table), (mp4, table[:5]), (mp4, table[:-7]), (mp4, 255 - table),
    ]  # fmt: skip
    rows = [300] * 5 + [1, 299, 1]
    frames = [np.array([0, 150, 297, 299]).clip(0, n - 1) for n in rows]
    data, picks, *_ = in_the_graph(split, frames, files)
    single = in_the_graph(split, frames[:1], files[:1])
    assert np.array_equal(data[0], single[0][0])
    assert np.array_equal(picks[0], single[1][0])
    assert all(len(broken) < len(data[0]) for broken in data[2:4])
    assert not data[4].any()


def stream_spec(split: Split, sampling: SamplingConfig, clips: int | None, device: str):
    frames = sampling.frames * (clips or sampling.segments)
    on_gpu = device != "cpu"
    graph = GraphSpec(
        input="mp4", batch=3, size=64, resize=on_gpu, threads=1, device_id=0 if on_gpu else None
    )
    augment = CENTRE if clips is None else None
    spec = StreamSpec(graph, sampling, augment, clips, resize_short=64, gop=split.gop, shuffle=4)
    assert spec.frames == frames
    return spec


def decoded(split: Split, spec: StreamSpec, batches: int) -> tuple[list[torch.Tensor], int]:
    """The clips of `batches` batches, and the bytes that were decoded."""
    tars = {str(tar): str(tar.with_suffix(".idx")) for tar in split.tars}
    reader = build_reader(spec, tars, seed=3, rank=0, world=1, state=None)
    decoder, clips, size = StreamDecoder(spec, spec.frames), [], 0
    for _ in range(batches):
        outputs = run_reader(reader, spec)
        decoder.submit(StreamBatch(outputs, list(range(3))))
        clips.append(decoder.tensor(decoder.collect()).cpu().clone())
        size += sum(len(np.asarray(sample)) for sample in outputs["encoded"])
    decoder.close()
    return clips, size


def check_pruned_against_whole(split: Split, sampling: str, clips: int | None, device: str) -> None:
    spec = stream_spec(split, SAMPLINGS[sampling], clips, device)
    batches = 2 * len(split) // 3
    pruned, small = decoded(split, spec, batches)
    whole, large = decoded(split, replace(spec, gop=0), batches)
    for clips, expected in zip(pruned, whole, strict=True):
        assert torch.equal(clips, expected)
        assert clips.any()
    # Most of a long file is pruned when few of its frames are needed.
    assert small < (0.2 if sampling == "single" else 0.95) * large


@pytest.mark.parametrize(("sampling", "clips"), [("apart", None), ("single", None), ("apart", 10)])
def test_pruned_files_decode_to_the_same_frames(lengths_of, sampling, clips):
    check_pruned_against_whole(lengths_of("vp9"), sampling, clips, "cpu")


def test_overlapping_windows(lengths_of):
    """Ten test clips of a short video share their frames, and eight snippets their groups."""
    split = lengths_of("vp9")
    for clips in (None, 10):
        spec = stream_spec(split, SAMPLINGS["wide"], clips, "cpu")
        pruned, whole = (decoded(split, s, 6)[0] for s in (spec, replace(spec, gop=0)))
        assert all(torch.equal(a, b) for a, b in zip(pruned, whole, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9"])
@pytest.mark.parametrize(("sampling", "clips"), [("apart", None), ("single", None), ("apart", 10)])
def test_pruned_files_decode_to_the_same_frames_on_the_gpu(large_of, codec, sampling, clips):
    check_pruned_against_whole(large_of(codec), sampling, clips, "cuda:0")
