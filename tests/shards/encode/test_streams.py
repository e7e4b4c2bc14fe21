"""The stream that a player shows, and notes on what the stored frames do not keep."""

from __future__ import annotations

import math
import re
import shlex
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from shards import ShardSettings, Source, build_split
from shards.encode.probe import probe
from shards.encode.streams import choose_stream
from shards.errors import BadVideo
from tests.shards.media import moving_squares, pack_one, psnr, write_video

DEFAULT, NONE = Disposition.default, Disposition(0)
FILM, SMALL_FILM = moving_squares(12, (160, 128)), moving_squares(12, (96, 64), seed=1)
PICTURE = moving_squares(1, (64, 64), seed=2)


def write_streams(path: Path, *streams: tuple[str, list[np.ndarray], Disposition]) -> Path:
    """Mux streams (codec, RGB frames, flags) of 25 frames a second."""
    with av.open(str(path), "w") as container:
        made = []
        for codec, frames, flags in streams:
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}.get(codec, "yuv420p")
            stream.disposition = flags
            made.append((stream, frames))
        packets = []
        for stream, frames in made:
            pictures = [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames]
            for number, picture in enumerate(pictures):
                picture.pts, picture.time_base = number, Fraction(1, 25)
            packets += [packet for p in [*pictures, None] for packet in stream.encode(p)]
        for packet in packets:
            container.mux(packet)
    return path


CASES = {
    "thumbnail first": [("mjpeg", PICTURE, NONE), ("libx264", FILM, DEFAULT)],
    "thumbnail without flags": [("mjpeg", PICTURE, NONE), ("libx264", FILM, NONE)],
    "thumbnail with the default flag": [("mjpeg", PICTURE, DEFAULT), ("libx264", FILM, NONE)],
    "previews": [("mjpeg", moving_squares(12, (64, 48)), DEFAULT), ("libx264", FILM, NONE)],
    "larger film second": [("libx264", SMALL_FILM, NONE), ("libx264", FILM, NONE)],
    "larger film first": [("libx264", FILM, DEFAULT), ("libx264", SMALL_FILM, DEFAULT)],
    "small default film": [("libx264", FILM, NONE), ("libx264", SMALL_FILM, DEFAULT)],
}
CHOSEN = {"larger film first": 0}  # otherwise 1


@pytest.mark.parametrize("case", CASES)
def test_the_stream_of_a_player_is_used_with_a_note(tmp_path, case):
    streams, chosen = CASES[case], CHOSEN.get(case, 1)
    path = write_streams(tmp_path / "x.mkv", *streams)
    packed = pack_one(tmp_path, path, quality=2)
    frames = streams[chosen][1]
    height, width = frames[0].shape[:2]
    assert (packed.metadata["width"], packed.metadata["height"]) == (width, height)
    assert packed.metadata["frames"] == len(frames)
    assert min(psnr(a, b) for a, b in zip(packed.rgb(), frames, strict=True)) > 25
    (note,) = packed.metadata["notes"]
    assert f"stream {chosen} (h264 {width}x{height}) is used, not {1 - chosen} (" in note


def test_a_cover_picture_is_no_second_stream(tmp_path):
    streams = ("png", PICTURE, Disposition.attached_pic), ("libx264", FILM, DEFAULT)
    path = write_streams(tmp_path / "x.mp4", *streams)
    packed = pack_one(tmp_path, path)
    assert (packed.metadata["frames"], packed.metadata["notes"]) == (12, [])


def test_a_segment_and_a_copy_use_the_same_stream(tmp_path):
    streams = ("mjpeg", SMALL_FILM, NONE), ("mjpeg", FILM, DEFAULT)
    path = write_streams(tmp_path / "x.mkv", *streams)
    segment = pack_one(tmp_path, Source(path, 0, "k", start=0.08, end=0.28), quality=2)
    assert psnr(segment.rgb()[0], FILM[2]) > 25
    copied = pack_one(tmp_path, path, copy=True)
    assert (copied.metadata["width"], copied.metadata["remuxed"]) == (160, True)
    assert "stream 1 (mjpeg 160x128) is used" in copied.metadata["notes"][0]


def test_a_stream_without_packets_is_not_chosen(tmp_path):
    path = write_streams(tmp_path / "x.mkv", ("libx264", FILM, NONE), ("libx264", FILM, NONE))
    with av.open(str(path)) as container:
        streams = container.streams.video
        assert choose_stream(streams, {0: 0, 1: 12}) is streams[1]
        assert choose_stream(streams, {0: 12, 1: 12}) is streams[0]


def test_the_codec_is_named_by_its_own_name(real, tmp_path):
    """Decoders have names of their own: libdav1d decodes AV1, msmpeg4 decodes msmpeg4v3."""
    frames = moving_squares(3, (96, 64))
    path = write_video(tmp_path / "x.avi", frames, codec="msmpeg4", options={})
    assert probe(path).codec == "msmpeg4v3"
    assert probe(real / "odd" / "tiny_av1.mp4").codec == "av1"


# ---- what the stored frames do not keep


@pytest.mark.parametrize(("name", "short"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG")])
def test_a_hdr_transfer_has_a_note(tmp_path, name, short):
    path = write_video(tmp_path / "x.mp4", FILM, options={"color_trc": name})
    assert pack_one(tmp_path, path).metadata["notes"] == [
        f"HDR ({short}) is stored without tone mapping"
    ]
    plain = write_video(tmp_path / "y.mp4", FILM, options={"color_trc": "bt709"})
    assert pack_one(tmp_path, plain).metadata["notes"] == []


@pytest.mark.parametrize(
    ("degrees", "stored", "size"),
    [(45, 0, (160, 128)), (10, 0, (160, 128)), (80, 90, (128, 160)), (90, None, (128, 160))],
)
def test_an_odd_rotation_has_a_note(tmp_path, degrees, stored, size):
    path = write_video(tmp_path / "x.mp4", FILM)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44  # the matrix of a track header of version 0
    angle = -math.radians(degrees)  # counterclockwise, as FFmpeg counts
    a, b = (round(65536 * value) for value in (math.cos(angle), math.sin(angle)))
    for position, value in ((0, a), (4, b), (12, -b), (16, a)):
        data[at + position : at + position + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(bytes(data))
    packed = pack_one(tmp_path, path)
    assert (packed.metadata["width"], packed.metadata["height"]) == size
    note = f"rotation by {degrees} degrees is rounded to {stored}"
    assert packed.metadata["notes"] == ([] if stored is None else [note])


def test_a_rate_above_the_highest_has_a_note(tmp_path):
    path = write_video(tmp_path / "x.mp4", FILM, rate=240)
    packed = pack_one(tmp_path, path)
    assert packed.metadata["fps"] == "120"
    assert packed.metadata["notes"] == ["240 frames a second are reduced to 120"]
    assert pack_one(tmp_path, path, fps="30").metadata["notes"] == []  # as the user asks
    slow = write_video(tmp_path / "y.mp4", FILM, rate=120)
    assert pack_one(tmp_path, slow).metadata["notes"] == []


# ---- animated pictures


def test_an_animated_png_is_a_video(tmp_path):
    path = write_video(tmp_path / "x.png", FILM, format="apng", codec="apng", pix_fmt="rgb24",
                       options={})  # fmt: skip
    packed = pack_one(tmp_path, path, quality=2)
    assert (packed.metadata["frames"], packed.metadata["fps"]) == (12, "25")
    assert min(psnr(a, b) for a, b in zip(packed.rgb(), FILM, strict=True)) > 25


def test_the_remedy_for_an_animated_webp_works(tmp_path):
    path = write_video(tmp_path / "IN.webp", FILM, codec="libwebp_anim", pix_fmt="rgb32",
                       options={"lossless": "1"})  # fmt: skip
    with pytest.raises(BadVideo) as caught:
        pack_one(tmp_path, path)
    assert caught.value.kind == "unsupported"
    command = shlex.split(re.search(r"python -c .*", caught.value.reason)[0])
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True)
    packed = pack_one(tmp_path, tmp_path / "OUT.png", quality=2)
    assert (packed.metadata["frames"], packed.metadata["fps"]) == (12, "25")
    assert min(psnr(a, b) for a, b in zip(packed.rgb(), FILM, strict=True)) > 25


def test_real_files_with_something_to_note(real, tmp_path):
    videos = real / "reports" / "videos"
    if not videos.is_dir():
        pytest.skip(f"no {videos}")
    names = ("rot45.mp4", "hdr_hlg.mp4", "fps240.mp4", "thumb_unflagged_first.mkv")
    sources = [Source(videos / name, 0, Path(name).stem, name=name) for name in names]
    report = build_split(sources, tmp_path, "x", ["x"], ShardSettings(workers=1))
    notes = {verdict["key"]: verdict["notes"] for verdict in report.with_status("ok")}
    assert [len(found) for found in notes.values()] == [1, 1, 1, 1]
    assert "rotation by 45 degrees" in notes["rot45"][0]
    assert "HLG" in notes["hdr_hlg"][0]
    assert "240" in notes["fps240"][0]
    assert "stream 1 (h264 160x120) is used" in notes["thumb_unflagged_first"][0]
