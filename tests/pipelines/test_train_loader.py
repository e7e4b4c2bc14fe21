"""Batches against an independent decoder, and the order of batches against the plan."""

from __future__ import annotations

import io
import shutil
from functools import partial

import av
import numpy as np
import pytest
import torch
from PIL import Image

from pipelines import (
    AugmentConfig,
    EvalLoader,
    LoaderConfig,
    LoaderError,
    Rank,
    SamplingConfig,
    TrainLoader,
)
from pipelines.plan.crops import eval_boxes
from pipelines.plan.sampling import test_frames as clip_frames
from pipelines.plan.sampling import val_frames
from shards import Split, open_split
from tests.pipelines.loaders import MEDIUM, ONE, train

make = partial(train, augment=MEDIUM)


def mp4_bytes(split: Split, sample: int) -> bytes:
    row = split.samples[sample]
    with open(split.tar_path(sample), "rb") as file:
        file.seek(int(row["offset"]))
        return file.read(int(row["size"]))


def decoded(split: Split, sample: int) -> np.ndarray:
    """All frames (N, H, W, 3) by PyAV."""
    with av.open(io.BytesIO(mp4_bytes(split, sample))) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def jpegs(split: Split, sample: int) -> np.ndarray:
    """All frames (N, H, W, 3) by Pillow, from the frame table."""
    data, row = mp4_bytes(split, sample), split.samples[sample]
    table = split.frames[row["first_frame"] : row["first_frame"] + row["num_frames"]]
    return np.stack(
        [np.asarray(Image.open(io.BytesIO(data[e["offset"] : e["offset"] + e["size"]])))
         for e in table]
    )  # fmt: skip


def resized(frames: np.ndarray, box: np.ndarray, size: int, flip: bool = False) -> torch.Tensor:
    """The reference: crop, mirror, bilinear with half-pixel centres, in floats."""
    y0, x0, y1, x1 = box.astype(int)
    cut = torch.from_numpy(frames[:, y0:y1, x0:x1].astype(np.float32)).permute(0, 3, 1, 2)
    cut = cut.flip(-1) if flip else cut
    return torch.nn.functional.interpolate(cut, (size, size), mode="bilinear").permute(0, 2, 3, 1)


@pytest.mark.parametrize("resize", ["torch", "dali"])
@pytest.mark.parametrize("roi", [True, False])
def test_training_pixels_are_the_plan_executed(split, resize, roi):
    loader = make(split, config=LoaderConfig(threads=1, resize=resize, roi_decode=roi))
    flips = 0
    for batch in loader.epoch(0):
        plan = loader.planner.plan(0, batch.ids, np.zeros(4, int))
        assert batch.clips.shape == (4, 4, 4, 48, 48, 3)
        assert batch.clips.dtype == torch.uint8
        assert batch.clips.is_contiguous()
        assert batch.labels.tolist() == plan.labels.tolist()
        flips += plan.flips.sum()
        for row, sample in enumerate(batch.ids):
            frames = jpegs(split, sample)[plan.frames[row]]
            expected = resized(frames, plan.boxes[row, 0], 48, plan.flips[row])
            clips = batch.clips[row].reshape(16, 48, 48, 3).float()
            # Half a level of rounding, one of fixed-point weights; decoders may differ by one.
            assert (clips - expected).abs().max() <= 2.6
    assert 0 < flips < 24
    loader.close()


def test_frames_are_those_of_pyav(split):
    """PyAV upsamples chroma differently, but a neighbouring frame would be far further away."""
    config = SamplingConfig()
    loader = EvalLoader(split, config, ONE, batch_size=4, crop_size=96, resize_short=96)
    for batch in loader:
        for row, sample in enumerate(batch.ids):
            if sample < 0:
                continue
            frames = decoded(split, sample)
            wanted = val_frames(len(frames), config).reshape(-1)
            box = eval_boxes(*frames.shape[1:3], 1, 96, 96)[0]
            clips = batch.clips[row].reshape(16, 96, 96, 3).float()
            for shown, index in zip(clips, wanted, strict=True):
                near = [n for n in (index - 1, index, index + 1) if 0 <= n < len(frames)]
                errors = [(resized(frames[[n]], box, 96)[0] - shown).abs().mean() for n in near]
                assert near[int(np.argmin(errors))] == index
                assert min(errors) < 3
    loader.close()


def test_eight_clips_and_three_crops(split):
    config = SamplingConfig()
    loader = EvalLoader(
        split, config, ONE, batch_size=3, clips=8, crops=3, crop_size=64, resize_short=80
    )
    for batch in loader:
        assert batch.clips.shape == (3, 3, 8, 4, 64, 64, 3)
        for row, sample in enumerate(batch.ids):
            if sample < 0:
                assert not batch.valid[row]
                continue
            frames = jpegs(split, sample)
            wanted = clip_frames(len(frames), 8, config).reshape(-1)
            boxes = eval_boxes(*frames.shape[1:3], 3, 64, 80)
            for crop in range(3):
                expected = resized(frames[wanted], boxes[crop], 64)
                clips = batch.clips[row, crop].reshape(32, 64, 64, 3).float()
                assert (clips - expected).abs().max() <= 2.6
    loader.close()


def test_a_crop_of_exactly_the_size_is_not_resampled(split):
    loader = EvalLoader(
        split, SamplingConfig(), ONE, batch_size=1, clips=4, crops=3, crop_size=96, resize_short=96
    )
    batch = next(iter(loader))
    frames = jpegs(split, 0)
    frames = frames[clip_frames(len(frames), 4, SamplingConfig())]
    expected = []
    for y0, x0, y1, x1 in eval_boxes(*frames.shape[2:4], 3, 96, 96).astype(int):
        expected.append(frames[:, :, y0:y1, x0:x1])
    found = batch.clips[0].numpy().astype(int)
    assert found.shape == np.stack(expected).shape
    assert abs(found - np.stack(expected)).max() <= 1
    loader.close()


def everything(loader: TrainLoader, epoch: int = 0, start: int = 0) -> list:
    return [(batch.ids.copy(), batch.clips.clone()) for batch in loader.epoch(epoch, start)]


@pytest.mark.parametrize("resize", ["torch", "dali"])
def test_brightness_is_drawn_once_per_video(split, resize):
    config = LoaderConfig(threads=1, resize=resize)
    plain = make(split, config=config)
    augment = AugmentConfig(size=48, short_sides=(64, 80), brightness=0.5)
    bright = make(split, config=config, augment=augment)
    for (ids, dull), (other_ids, changed) in zip(
        everything(plain), everything(bright), strict=True
    ):
        assert (ids == other_ids).all()
        factors = bright.planner.plan(0, ids, np.zeros(4, int)).colours[:, 0]
        expected = (dull.float() * torch.tensor(factors).view(4, 1, 1, 1, 1, 1)).clamp(0, 255)
        assert (changed.float() - expected).abs().mean() < 1.0
    plain.close()
    bright.close()


@pytest.mark.parametrize("config", [ONE, LoaderConfig(threads=1, reader="webdataset")])
def test_all_frames_of_a_video_get_the_same_colours(split, config):
    """All frames of the clips of a one-frame video stay equal, whatever the colours."""
    short = int(np.argmin(split.samples["num_frames"]))
    strong = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2}
    loader = make(split, config=config, augment=AugmentConfig(size=48, flip=0.0, **strong))
    views = [
        clips.reshape(16, 48, 48, 3)
        for epoch in range(8)
        for ids, batch in everything(loader, epoch)
        for sample, clips in zip(ids, batch, strict=True)
        if sample == short
    ]
    loader.close()
    assert len(views) >= 4
    assert all((view == view[:1]).all() for view in views)
    means = torch.stack([view.float().mean(dim=(0, 1, 2)) for view in views])
    assert (means.std(dim=0) > 4).all()  # other colours in each epoch


@pytest.mark.parametrize("world", range(1, 9))
@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_evaluation_covers_every_video_once(split, world, batch_size):
    ids: list[int] = []
    batches = set()
    for rank in range(world):
        loader = EvalLoader(
            split, SamplingConfig(), ONE, batch_size=batch_size, rank=Rank(rank, world)
        )
        plans = [plan.ids for plan in loader.plans.batches(0)]
        batches.add(len(plans))
        assert len(plans) == len(loader)
        assert all(len(plan) == batch_size for plan in plans)
        ids += [int(i) for plan in plans for i in plan if i >= 0]
        loader.close()
    assert sorted(ids) == list(range(len(split)))
    assert len(batches) == 1


def test_a_rank_without_videos_left_yields_padded_batches(split):
    loader = EvalLoader(
        split, SamplingConfig(), ONE, batch_size=7, crop_size=32, resize_short=32, rank=Rank(3, 8)
    )
    valid = [batch.valid.tolist() for batch in loader]
    assert valid == [[True] * 3 + [False] * 4]
    loader.close()
    loader = EvalLoader(
        split, SamplingConfig(), ONE, batch_size=1, crop_size=32, resize_short=32, rank=Rank(7, 8)
    )
    last = list(loader)[-1]
    assert last.ids.tolist() == [-1]
    assert last.labels.tolist() == [-1]
    assert not last.clips.any()
    loader.close()


def test_clips_can_be_viewed_as_channels_last_maps(split):
    loader = make(split, config=LoaderConfig(threads=1, resize="dali"))
    batch = next(loader.epoch(0))
    maps = batch.clips.view(4 * 16, 48, 48, 3).permute(0, 3, 1, 2)
    assert maps.data_ptr() == batch.clips.data_ptr()
    assert maps.is_contiguous(memory_format=torch.channels_last)
    loader.close()


def test_clips_are_the_memory_of_dali_and_no_copy(split):
    loader = make(split, config=LoaderConfig(threads=1, resize="dali"))
    source = loader.source
    decoder = source.make_decoder()
    for request in source.open(0):
        decoder.submit(source.load(request).encoded)
        outputs = decoder.collect()
        assert decoder.tensor(outputs).data_ptr() == outputs[0].data_ptr()
    decoder.close()
    loader.close()


@pytest.mark.parametrize("resize", ["torch", "dali"])
def test_later_batches_do_not_overwrite_earlier_ones(split, resize):
    loader = make(split, config=LoaderConfig(threads=1, resize=resize))
    held = [
        (batch.clips, batch.clips.clone()) for epoch in range(3) for batch in loader.epoch(epoch)
    ]
    assert len(held) == 18
    for clips, copy in held:
        assert (clips == copy).all()
    loader.close()


def test_an_epoch_left_early_does_not_disturb_the_next(split):
    loader = make(split)
    whole = everything(loader, 1)
    for _ in range(3):
        next(loader.epoch(0))
        again = everything(loader, 1)
        assert all((a[1] == b[1]).all() for a, b in zip(whole, again, strict=True))
    loader.close()


@pytest.mark.parametrize(("rule", "mirrored"), [("skip_directional", 0), ("swap_directional", 1)])
def test_a_directional_class_is_mirrored_with_its_label_or_not_at_all(split, rule, mirrored):
    """The classes of the set: left to right, right to left, still."""
    chosen = {"size": 48, "short_sides": (48, 48), "kind": "centre"}
    plain = make(split, augment=AugmentConfig(**chosen, flip=0.0))
    ruled = make(split, augment=AugmentConfig(**chosen, flip=1.0, flip_classes=rule))
    for one, other in zip(plain.epoch(0), ruled.epoch(0), strict=True):
        assert (one.ids == other.ids).all()
        for row, label in enumerate(one.labels.tolist()):
            flipped = label == 2 or mirrored
            expected = one.clips[row].flip(-2) if flipped else one.clips[row]
            assert (other.clips[row].int() - expected.int()).abs().max() <= 1
            assert int(other.labels[row]) == ({0: 1, 1: 0, 2: 2}[label] if mirrored else label)
    plain.close()
    ruled.close()


def test_samples_without_a_label_are_refused_in_training_alone(split, tmp_path):
    shutil.copytree(split.root, tmp_path / "set")
    path = tmp_path / "set" / "train" / "samples.npy"
    samples = np.load(path)
    samples["label"][[4, 7]] = -1
    np.save(path, samples)
    unlabelled = open_split(tmp_path / "set", "train")
    keys = f"{split.key(4)}, {split.key(7)}"
    message = rf"set/train: 2 of 26 samples without a label from 0 to 2 \(the first: {keys}\)"
    with pytest.raises(LoaderError, match=message):
        train(unlabelled)
    EvalLoader(unlabelled, SamplingConfig(), LoaderConfig(threads=1), batch_size=4).close()
