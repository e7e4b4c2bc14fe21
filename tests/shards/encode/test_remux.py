"""Packets that already have the requested format are stored as they are."""

from __future__ import annotations

import numpy as np
import pytest

from shards import Source
from shards.encode.jpeg_folder import read_jpeg_header
from tests.shards.media import jpeg, moving_squares, pack_one, write_video

GOP_CODECS = ("h264", "hevc", "vp9")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "x.mp4"
    return write_video(path, moving_squares(19, (160, 144)))


def make_folder(path, frames, **more) -> Source:
    path.mkdir()
    for number, frame in enumerate(frames, 1):
        (path / f"{number:05d}.jpg").write_bytes(jpeg(frame, **more))
    return Source(path, 0, "k", name=path.name, fps="12")


@pytest.mark.parametrize("codec", ["mjpeg", *GOP_CODECS])
def test_a_copy_keeps_every_packet(tmp_path, clip, codec):
    first = pack_one(tmp_path, clip, codec=codec)
    path = tmp_path / "made.mp4"
    path.write_bytes(first.mp4)
    again = pack_one(tmp_path, path, codec=codec, copy=True)
    assert again.metadata["remuxed"]
    assert again.metadata["notes"] == []
    assert [again.jpeg(t) for t in range(19)] == [first.jpeg(t) for t in range(19)]
    for one, other in zip(first.rgb(), again.rgb(), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "rate", "why"),
    [
        ({"crf": "20", "g": "4", "bf": "2"}, 25, "B-frames"),
        ({"crf": "20", "g": "12", "bf": "0"}, 25, "GOPs"),
        ({"crf": "20", "g": "4", "bf": "0", "flags": "-cgop", "x264-params": "open-gop=1"}, 25, ""),
    ],
)
def test_another_format_is_encoded_again_with_a_reason(tmp_path, options, rate, why):
    path = write_video(tmp_path / "x.mp4", moving_squares(9, (160, 144)), rate, options=options)
    packed = pack_one(tmp_path, path, codec="h264", copy=True)
    assert packed.metadata["remuxed"] == (why == "")
    assert any(why in note for note in packed.metadata["notes"]) or not why


def test_copy_needs_the_codec_the_size_and_the_rate(tmp_path, clip):
    for settings, why in (
        ({"codec": "vp9"}, "codec is h264"),
        ({"codec": "h264", "short_side": 64}, "short side"),
        ({"codec": "h264", "fps": "10"}, "frame rate"),
    ):
        packed = pack_one(tmp_path, clip, copy=True, **settings)
        assert any(why in note for note in packed.metadata["notes"]), packed.metadata["notes"]


def test_jpegs_of_a_folder_are_stored_bit_for_bit(tmp_path):
    frames = moving_squares(13, (176, 100))
    source = make_folder(tmp_path / "100218", frames)
    packed = pack_one(tmp_path, source, short_side=64)
    assert packed.metadata["remuxed"]
    assert packed.metadata["fps"] == "12"
    assert (packed.metadata["width"], packed.metadata["height"]) == (176, 100)  # native size
    for t in range(13):
        assert packed.jpeg(t) == (source.path / f"{t + 1:05d}.jpg").read_bytes()
    assert len(packed.rgb()) == 13


def test_jpegs_that_hardware_cannot_read_are_encoded_again(tmp_path):
    frames = moving_squares(6, (96, 64))
    packed = pack_one(tmp_path, make_folder(tmp_path / "x", frames, pix_fmt="yuvj444p"))
    assert not packed.metadata["remuxed"]
    assert "no baseline 4:2:0" in packed.metadata["notes"][0]
    assert all(read_jpeg_header(packed.jpeg(t)).is_baseline_420 for t in range(6))
