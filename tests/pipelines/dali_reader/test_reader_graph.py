"""The webdataset reader against the default one and against plain arithmetic."""

from __future__ import annotations

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from pipelines.plan.planner import replacement
from shards import Split, open_split
from tests.pipelines import loaders
from tests.pipelines.damage import Damage, bad_huffman_table, overwrite, zeroed
from tests.pipelines.loaders import MEDIUM

STREAM = LoaderConfig(reader="webdataset", threads=1, order=OrderConfig(window=1))
PLAIN = LoaderConfig(threads=1)
WAYS = [("mjpeg", "image"), ("mjpeg", "video"), ("vp9", "video")]


def train(split: Split, config: LoaderConfig = STREAM, **changes: Any) -> TrainLoader:
    settings = {"batch_size": 2, "augment": MEDIUM, **changes}
    return loaders.train(split, config=config, **settings)


def evaluate(split: Split, config: LoaderConfig, **changes: Any) -> dict[int, torch.Tensor]:
    settings = {"batch_size": 2, "crop_size": 64, "resize_short": 80, **changes}
    loader = EvalLoader(split, SamplingConfig(), config, **settings)
    found = {}
    for batch in loader:
        for row in np.flatnonzero(batch.valid):
            assert batch.labels[row] == split.samples["label"][batch.ids[row]]
            assert int(batch.ids[row]) not in found
            found[int(batch.ids[row])] = batch.clips[row].clone()
    loader.close()
    return found


@pytest.mark.parametrize(("codec", "decode"), WAYS)
@pytest.mark.parametrize("views", [{}, {"clips": 8, "crops": 3}, {"clips": 4, "crops": 1}])
def test_evaluation_is_that_of_the_default_reader(split_of, codec, decode, views):
    split = split_of(codec)
    expected = evaluate(split, replace(PLAIN, decode=decode), **views)
    found = evaluate(split, replace(STREAM, decode=decode), **views)
    assert set(found) == set(expected) == set(range(len(split)))
    for sample, clips in expected.items():
        assert (found[sample] == clips).all(), sample


@pytest.mark.gpu
@pytest.mark.parametrize(("codec", "decode"), [*WAYS, ("h264", "video"), ("hevc", "video")])
@pytest.mark.parametrize("views", [{}, {"clips": 8, "crops": 3}])
def test_evaluation_is_that_of_the_default_reader_on_the_gpu(large_split_of, codec, decode, views):
    split = large_split_of(codec)
    expected = evaluate(split, replace(PLAIN, decode=decode), rank=Rank(device="cuda:0"), **views)
    found = evaluate(split, replace(STREAM, decode=decode), rank=Rank(device="cuda:0"), **views)
    assert set(found) == set(expected) == set(range(len(split)))
    for sample, clips in expected.items():
        assert clips.is_cuda
        # nvJPEG may give an image to another of its decoders, by its place in the batch.
        error = (found[sample].float() - clips.float()).abs().mean()
        assert error <= (2.5 if decode == "image" else 0), sample


@pytest.mark.gpu
@pytest.mark.parametrize(("codec", "decode"), [*WAYS, ("h264", "video")])
def test_training_on_the_gpu_shows_what_the_cpu_shows(large_split_of, codec, decode):
    """The draws are made on the CPU in both cases, so the views are the same."""
    split, config = large_split_of(codec), replace(STREAM, decode=decode)
    augment = AugmentConfig(size=64, brightness=0.3, hue=0.1)
    on_gpu = train(split, config, augment=augment, rank=Rank(device="cuda:0"))
    batches = [(b.ids.tolist(), b.clips.cpu().float()) for b in on_gpu.epoch(0)]
    again = [(b.ids.tolist(), b.clips.cpu().float()) for b in on_gpu.epoch(0)]
    on_gpu.close()
    assert [ids for ids, _ in batches] == [ids for ids, _ in again]
    assert len(batches) == len(split) // 2
    if codec == "h264":  # which DALI decodes on a GPU alone
        return
    on_cpu = train(split, config, augment=augment)
    for (ids, clips), batch in zip(batches, on_cpu.epoch(0), strict=True):
        assert batch.ids.tolist() == ids
        assert (clips - batch.clips.float()).abs().mean() <= 2.5
    on_cpu.close()


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_evaluation_covers_every_video_once(split_of, world, batch_size):
    split = split_of("mjpeg")
    ids: list[int] = []
    for rank in range(world):
        ids += evaluate(split, STREAM, rank=Rank(rank, world), batch_size=batch_size)
    assert sorted(ids) == list(range(len(split)))


@pytest.mark.parametrize(("codec", "decode"), WAYS)
def test_training_pixels_come_from_the_right_video(split_of, codec, decode):
    """A centre crop is the same region for every draw: each frame must be one of its video's."""
    split = split_of(codec)
    augment = AugmentConfig(size=48, short_sides=(48, 48), kind="centre", flip=0.0)
    loader = train(split, replace(STREAM, decode=decode), augment=augment)
    for batch in loader.epoch(0):
        assert batch.clips.shape == (2, 4, 4, 48, 48, 3)
        for row, sample in enumerate(batch.ids):
            assert batch.labels[row] == split.samples["label"][sample]
            known = whole_video(split, int(sample))
            shown = batch.clips[row].reshape(16, 48, 48, 3).float()
            error = (shown[:, None] - known[None]).abs().mean(dim=(2, 3, 4))
            # The square comes by again and again, so several frames may look the same: there must
            # be an ascending choice of them, spread over the video.
            at = -1
            for row_error in error:
                matches = (row_error < 2).nonzero().flatten()
                matches = matches[matches >= at]
                assert len(matches)
                at = int(matches[0])
            assert (error[-1, (len(known) - 1) // 2 :] < 2).any()
    loader.close()


def whole_video(split: Split, sample: int) -> torch.Tensor:
    """Every frame of the stored file (N, 48, 48, 3), by PyAV and plain interpolation."""
    row = split.samples[sample]
    with open(split.tar_path(sample), "rb") as file:
        file.seek(int(row["offset"]))
        data = file.read(int(row["size"]))
    with av.open(io.BytesIO(data)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    images = torch.from_numpy(np.stack(frames)).float()
    side = min(images.shape[1:3])
    y, x = (images.shape[1] - side) // 2, (images.shape[2] - side) // 2
    square = images[:, y : y + side, x : x + side].permute(0, 3, 1, 2)
    return torch.nn.functional.interpolate(square, (48, 48), mode="bilinear").permute(0, 2, 3, 1)


def epoch(loader: TrainLoader, number: int = 0, **where: Any) -> list:
    return [(b.ids.tolist(), b.clips.clone(), b.state) for b in loader.epoch(number, **where)]


def test_an_epoch_is_repeatable_and_unlike_the_next(split):
    loader = train(split, batch_size=4)
    first, again, other = epoch(loader), epoch(loader), epoch(loader, 1)
    assert [ids for ids, *_ in first] == [ids for ids, *_ in again]
    assert all((a[1] == b[1]).all() for a, b in zip(first, again, strict=True))
    assert [ids for ids, *_ in first] != [ids for ids, *_ in other]
    seen = [video for ids, *_ in first for video in ids]
    assert len(set(seen)) == len(seen) == 24
    loader.close()


@pytest.mark.parametrize("with_state", [True, False])
def test_resume_in_mid_epoch(split, with_state):
    loader = train(split, batch_size=4)
    whole = epoch(loader, 2)
    for done in (1, 3, 5):
        state = whole[done - 1][2] if with_state else None
        rest = epoch(loader, 2, start=4 * done, state=state)
        assert [ids for ids, *_ in rest] == [ids for ids, *_ in whole[done:]]
        assert all((a[1] == b[1]).all() for a, b in zip(rest, whole[done:], strict=True))
    loader.close()


def test_ranks_share_an_epoch(split):
    loaders = [train(split, rank=Rank(rank, 3)) for rank in range(3)]
    seen = [video for loader in loaders for ids, *_ in epoch(loader) for video in ids]
    assert len(seen) == len(set(seen)) == 24
    for loader in loaders:
        loader.close()


def test_one_box_and_one_flip_per_video(split):
    """All frames of the clips of a one-frame video stay equal, whatever is drawn."""
    short = int(np.argmin(split.samples["num_frames"]))
    loader = train(split, batch_size=1)
    views = []
    for number in range(6):
        for ids, clips, _ in epoch(loader, number):
            if ids == [short]:
                views.append(clips[0].reshape(16, 48, 48, 3))
    assert len(views) >= 5
    assert all((view == view[:1]).all() for view in views)
    assert len({view.numpy().tobytes() for view in views}) == len(views)
    loader.close()


@pytest.mark.parametrize(
    ("sampling", "augment"),
    [
        ({"mode": "dense"}, {}),
        ({}, {"kind": "multi_scale"}),
        ({}, {"repeats": 2}),
        ({}, {"flip_classes": "skip_directional"}),
    ],
)
def test_what_the_graph_cannot_do_is_refused(split, sampling, augment):
    with pytest.raises(LoaderError, match=r"loader\.reader"):
        TrainLoader(
            split, SamplingConfig(**sampling), AugmentConfig(**augment), STREAM, seed=0,
            batch_size=2,
        )  # fmt: skip


def test_h264_needs_a_gpu(split_of):
    with pytest.raises(
        LoaderError, match=r"loader\.reader must be frames for h264 shards on a CPU"
    ):
        train(split_of("h264"))


def test_staged_tars_are_read(split_of, tmp_path):
    split = split_of("mjpeg")
    staged = replace(STREAM, stage="all", scratch=tmp_path)
    loader, plain = train(split, staged), train(split)
    assert loader.split.tars[0].is_relative_to(tmp_path)
    assert [ids for ids, *_ in epoch(loader)] == [ids for ids, *_ in epoch(plain)]
    loader.close()
    plain.close()
    assert set(evaluate(split, staged)) == set(range(len(split)))


def damaged(split: Split, folder: Path, samples: list[int], damage: Damage, fix_crc: bool) -> Split:
    """A copy of the set in which every frame of these samples is damaged."""
    shutil.copytree(split.root, folder)
    for sample in samples:
        overwrite(open_split(folder, "train"), sample, damage, fix_crc=fix_crc)
    return open_split(folder, "train")


DAMAGE = [
    ("mjpeg", "image", zeroed, False),
    ("mjpeg", "image", zeroed, True),  # DALI would crash
    ("mjpeg", "image", bad_huffman_table, True),  # only DALI can notice it
    ("mjpeg", "video", zeroed, False),
    ("vp9", "video", zeroed, False),
]


@pytest.mark.parametrize(("codec", "decode", "damage", "fix_crc"), DAMAGE)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_broken_videos_are_replaced_in_training(
    split_of, tmp_path, codec, decode, damage, fix_crc, batch_size
):
    split, bad = split_of(codec), [2, 7]
    broken = damaged(split, tmp_path / "set", bad, damage, fix_crc)
    config = replace(STREAM, decode=decode)
    intact = train(split, config, batch_size=batch_size)
    loader = train(broken, config, batch_size=batch_size)
    broken_ids = set()
    for before, after in zip(intact.epoch(0), loader.epoch(0), strict=True):
        replaced = {video: (other, reason) for video, other, reason in after.replaced}
        for row, video in enumerate(before.ids.tolist()):
            if video not in bad:
                assert after.ids[row] == video
                assert torch.equal(after.clips[row], before.clips[row])
                continue
            other, reason = replaced[video]
            broken_ids.add(video)
            assert split.key(video) in reason
            assert ("CRC32" in reason) == (not fix_crc)
            chain = [replacement(video, attempt, len(split)) for attempt in range(20)]
            assert other == next(sample for sample in chain if sample not in bad)
            assert after.ids[row] == other
            assert after.clips[row].any()
            assert after.labels[row] == split.samples["label"][other]
    assert broken_ids
    for one in (intact, loader):
        one.close()


@pytest.mark.parametrize(("codec", "decode", "damage", "fix_crc"), DAMAGE)
def test_broken_videos_are_listed_in_evaluation(split_of, tmp_path, codec, decode, damage, fix_crc):
    broken = damaged(split_of(codec), tmp_path / "set", [2, 7], damage, fix_crc)
    loader = EvalLoader(
        broken, SamplingConfig(), replace(STREAM, decode=decode), batch_size=2, crop_size=64,
        resize_short=80,
    )  # fmt: skip
    valid = [int(i) for batch in loader for i in batch.ids[batch.valid]]
    assert sorted(valid) == [0, 1, 3, 4, 5, 6, 8]
    assert sorted(video for video, _ in loader.missing) == [2, 7]
    loader.close()


def test_a_tar_on_a_network_disk_that_is_cut_off_while_it_is_read(split_of, tmp_path, monkeypatch):
    """There tars are not mapped into memory, where this would end the process."""
    monkeypatch.setattr("pipelines.dali_reader.reader_graph.is_network", lambda path: True)
    shutil.copytree(split_of("mjpeg").root, tmp_path / "set")
    split = open_split(tmp_path / "set", "train")
    loader = train(split, batch_size=1)
    batches = loader.epoch(0)
    next(batches)
    for tar in split.tars:
        os.truncate(tar, 3000)
    rest = (batch for number in range(1, 4) for batch in loader.epoch(number))
    with pytest.raises(LoaderError, match=r"loader\.reader frames"):
        list(rest)
    loader.close()


@pytest.mark.parametrize("suffix", [".tar", ".idx"])
def test_a_lost_file_is_an_error_of_one_line(split_of, tmp_path, suffix):
    shutil.copytree(split_of("mjpeg").root, tmp_path / "set")
    split = open_split(tmp_path / "set", "train")
    lost = split.tars[1].with_suffix(suffix)
    lost.unlink()
    loader = train(split)
    with pytest.raises(LoaderError, match=lost.name) as caught:
        list(loader.epoch(0))
    assert "\n" not in str(caught.value)
    loader.close()


def test_a_state_that_dali_refuses_is_not_an_error_of_the_tars(split_of):
    """The caller can then open the epoch without it (`dsanet.engine.reader_state`)."""
    loader = train(split_of("mjpeg"))
    with pytest.raises(RuntimeError) as caught:
        loader.epoch(0, 4, b"no checkpoint")
    assert not isinstance(caught.value, LoaderError)
    assert len(list(loader.epoch(0, 4))) == len(loader) - 2  # batches of 2
    loader.close()
