"""Frames come out upright, square, BT.601, 4:2:0, progressive: compared with what was drawn."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from shards import Source
from shards.encode.jpeg_folder import read_jpeg_header
from shards.encode.normalise import FrameProperties, Geometry, compute_geometry
from shards.errors import BadVideo
from tests.shards.media import moving_squares, pack_one, psnr, write_video

IDENTITY = (1, 0, 0, 1)


# Tables of 16.16 fixed-point display matrices, and what they do to an upright array (H, W, 3).
TURNS = {
    90: ((0, 1, -1, 0), lambda a: np.rot90(a, -1)),
    180: ((-1, 0, 0, -1), lambda a: np.rot90(a, 2)),
    270: ((0, -1, 1, 0), lambda a: np.rot90(a, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda a: a[:, ::-1]),
    "flipped": ((1, 0, 0, -1), lambda a: a[::-1]),
    "transposed": ((0, 1, 1, 0), lambda a: a.transpose(1, 0, 2)),
}


def drawing(t: int, width: int = 128, height: int = 96) -> np.ndarray:
    """A smooth, saturated picture (H, W, 3) without symmetry, moving with t."""
    y, x = np.mgrid[:height, :width]
    red = 40 + 180 * x / width
    green = 30 + 190 * y / height
    distance = ((x / width - 0.3 - 0.01 * t) / 0.15) ** 2 + ((y / height - 0.35) / 0.2) ** 2
    blue = 40 + 200 * np.exp(-distance / 2)
    return np.stack([red, green, blue], -1).astype(np.uint8)


def drawings(count: int = 6, width: int = 128, height: int = 96) -> list[np.ndarray]:
    return [drawing(t, width, height) for t in range(count)]


def encode(path: Path, frames, prepare=lambda f: f.reformat(format="yuv444p"), **context) -> Path:
    """A lossless FFV1 file with `context` set on the encoder; `prepare` converts each frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        first = prepare(av.VideoFrame.from_ndarray(frames[0], format="rgb24"))
        stream.pix_fmt = first.format.name
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for array in frames:
            frame = prepare(av.VideoFrame.from_ndarray(array, format="rgb24"))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn_mp4(path: Path, signs: tuple[int, int, int, int]) -> None:
    """Write a display matrix into the track header of an mp4."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (s << 16 for s in signs)
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))


MATRICES = {"bt709": 1, "bt601": 6, "bt2020": 9}  # AVColorSpace


def combing(frame: np.ndarray) -> float:
    """How much rows differ from the mean of their neighbours: high where fields are woven."""
    rows = frame.astype(float).mean(-1)
    return float(np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean())


def properties(width: int, height: int, aspect: Fraction = Fraction(1)) -> FrameProperties:
    return FrameProperties(width, height, "yuv420p", aspect, 2, 1, IDENTITY, False)


@pytest.mark.parametrize("turn", TURNS)
def test_rotation_is_applied(tmp_path, turn):
    signs, expected = TURNS[turn]
    path = write_video(tmp_path / "x.mp4", drawings(), options={"crf": "4"})
    turn_mp4(path, signs)
    frames = pack_one(tmp_path, path).rgb()
    for t, frame in enumerate(frames):
        assert frame.shape == expected(drawing(t)).shape
        assert psnr(frame, expected(drawing(t))) > 35


def test_pixels_become_square(tmp_path):
    more = {"aspect": Fraction(4, 3), "options": {"crf": "4"}}
    path = write_video(tmp_path / "x.mp4", drawings(), **more)
    packed = pack_one(tmp_path, path)
    assert (packed.metadata["width"], packed.metadata["height"]) == (170, 96)
    assert psnr(packed.rgb()[2], drawing(2, 170, 96)) > 35


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("codec", ["mjpeg", "h264"])
def test_colours_survive_matrix_and_range(tmp_path, matrix, full, codec):
    number, value = MATRICES[matrix], 2 if full else 1

    def prepare(frame):
        ready = frame.reformat(
            format="yuv444p", dst_colorspace=number, dst_color_range=value, src_color_range=2
        )
        ready.colorspace, ready.color_range = number, value
        return ready

    path = encode(tmp_path / "x.mkv", drawings(), prepare, colorspace=number, color_range=value)
    packed = pack_one(tmp_path, path, codec=codec, quality=2 if codec == "mjpeg" else 8)
    expected = drawing(2, packed.metadata["width"], packed.metadata["height"])
    assert psnr(packed.rgb()[2], expected) > 35


def test_range_and_matrix_are_what_the_format_says(tmp_path):
    path = write_video(tmp_path / "x.mp4", drawings())
    for codec, ranges in (("mjpeg", (2,)), ("h264", (1,)), ("hevc", (1,)), ("vp9", (0, 1))):
        packed = pack_one(tmp_path, path, codec=codec)
        (tmp_path / "y.mp4").write_bytes(packed.mp4)
        with av.open(str(tmp_path / "y.mp4")) as container:
            frame = next(container.decode(video=0))
            assert frame.color_range in ranges
            assert frame.colorspace in (5, 6)
            assert frame.format.name in ("yuvj420p", "yuv420p")


@pytest.mark.parametrize("depth", ["yuv420p10le", "yuv422p", "yuv444p12le", "gbrp10le", "gray"])
def test_every_pixel_format_becomes_8_bit_420(tmp_path, depth):
    frames = drawings()
    if depth == "gray":
        frames = [np.repeat(f[..., :1], 3, axis=2) for f in frames]
    path = encode(tmp_path / "x.mkv", frames, lambda f: f.reformat(format=depth))
    packed = pack_one(tmp_path, path, quality=2)
    assert read_jpeg_header(packed.jpeg(0)).is_baseline_420
    assert psnr(packed.rgb()[3], frames[3]) > 34


@pytest.mark.parametrize(("width", "height"), [(127, 95), (129, 97), (65, 91)])
def test_odd_sides_become_even(tmp_path, width, height):
    path = encode(tmp_path / "x.mkv", drawings(3, width, height))
    packed = pack_one(tmp_path, path, quality=2)
    stored = packed.rgb()[1]
    assert abs(stored.shape[1] - width) == 1
    assert abs(stored.shape[0] - height) == 1
    assert stored.shape[0] % 2 == stored.shape[1] % 2 == 0
    assert psnr(stored, drawing(1, stored.shape[1], stored.shape[0])) > 33


def test_short_side_keeps_the_aspect_ratio(tmp_path):
    path = encode(tmp_path / "x.mkv", drawings(3, 400, 300))
    packed = pack_one(tmp_path, path, short_side=90, quality=2)
    assert (packed.metadata["width"], packed.metadata["height"]) == (120, 90)
    assert psnr(packed.rgb()[1], drawing(1, 120, 90)) > 34


def test_interlaced_video_is_deinterlaced(tmp_path):
    fields = [drawing(0)] * 24
    bars = []
    for t, frame in enumerate(fields):
        moved = frame.copy()
        moved[:, 4 * t : 4 * t + 16] = 255
        bars.append(moved)
    woven = []
    for top, bottom in zip(bars[::2], bars[1::2], strict=True):
        frame = top.copy()
        frame[1::2] = bottom[1::2]
        woven.append(frame)
    options = {"crf": "4", "flags": "+ildct+ilme", "x264-params": "tff=1"}
    path = write_video(tmp_path / "x.mp4", woven, options=options)
    stored = pack_one(tmp_path, path, quality=2).rgb()
    assert len(stored) == len(woven)
    assert combing(woven[5]) > 3 * combing(bars[10])
    assert combing(stored[5]) < 0.3 * combing(woven[5])


def test_variable_rate_becomes_constant(tmp_path):
    times = [0, 40, 80, 200, 240, 280, 320]  # ms: at 25 per second, frame 2 stands for 3 slots
    frames = drawings(7)
    path = write_video(tmp_path / "x.mkv", frames, pts=times, options={"crf": "4", "bf": "0"})
    packed = pack_one(tmp_path, path, quality=2)
    assert packed.metadata["fps"] == "25"
    assert not packed.metadata["original"]["constant_rate"]
    shown = [0, 1, 2, 2, 2, 3, 4, 5, 6]
    stored = packed.rgb()
    assert len(stored) == len(shown)
    for frame, source in zip(stored, shown, strict=True):
        assert psnr(frame, frames[source]) > 36
    assert packed.jpeg(2) == packed.jpeg(3) == packed.jpeg(4)


@pytest.mark.parametrize(("asked", "count"), [("50", 49), ("12.5", 13), ("native", 25)])
def test_the_asked_rate_is_kept(tmp_path, asked, count):
    path = write_video(tmp_path / "x.mp4", drawings(25))
    packed = pack_one(tmp_path, path, fps=asked)
    assert abs(packed.metadata["frames"] - count) <= 1
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 25


def test_a_segment_is_cut_out(tmp_path):
    path = write_video(tmp_path / "x.mp4", drawings(25), options={"crf": "4"})
    source = Source(path, 0, "k", start=0.4, end=0.6)
    frames = pack_one(tmp_path, source, quality=2).rgb()
    assert len(frames) == 5
    assert psnr(frames[0], drawing(10)) > 36
    assert psnr(frames[-1], drawing(14)) > 36


@pytest.mark.parametrize(("seconds", "count"), [(0.2, 5), (2.0, 25)])
def test_a_clip_that_may_be_trimmed_is_cut_only_if_longer(tmp_path, seconds, count):
    path = write_video(tmp_path / "x.mp4", drawings(60 if count == 5 else 25), rate=25)
    source = Source(path, 0, "k", start=0.4, end=0.4 + seconds, if_longer=True)
    assert pack_one(tmp_path, source).metadata["frames"] == count


def test_a_change_of_size_in_the_stream_is_scaled_to_the_first(tmp_path):
    parts = []
    for width, height in ((128, 96), (64, 48)):
        path = write_video(tmp_path / f"{width}.h264", drawings(5, width, height), format="h264")
        parts.append(path.read_bytes())
    path = tmp_path / "x.h264"
    path.write_bytes(b"".join(parts))
    packed = pack_one(tmp_path, path)
    assert {f.shape for f in packed.rgb()} == {(96, 128, 3)}
    assert "the size changes in the stream" in packed.metadata["notes"]


@pytest.mark.parametrize(
    ("frame", "codec", "scaled", "stored"),
    [
        (properties(1920, 1080), "mjpeg", (456, 256), (456, 256)),
        (properties(1920, 1080), "h264", (456, 256), (448, 256)),
        (properties(340, 256), "vp9", (340, 256), (336, 256)),
        (properties(64, 64), "h264", (144, 144), (144, 144)),
        (properties(64, 48), "mjpeg", (64, 48), (64, 48)),
        (properties(340, 256, Fraction(64, 51)), "mjpeg", (426, 256), (426, 256)),
    ],
)
def test_stored_size_keeps_the_aspect_ratio(frame, codec, scaled, stored):
    assert compute_geometry(frame, 256, codec) == Geometry(scaled, stored)


def test_black_runs_are_flagged_and_kept(tmp_path):
    frames = [*drawings(5), *[np.zeros((96, 128, 3), np.uint8)] * 20, *drawings(5)]
    packed = pack_one(tmp_path, write_video(tmp_path / "x.mp4", frames))
    assert packed.metadata["notes"] == ["black from frame 5 to 25"]
    assert packed.metadata["frames"] == 30


def test_tiny_pictures_are_refused(tmp_path):
    path = encode(tmp_path / "x.mkv", drawings(3, 8, 8))
    with pytest.raises(BadVideo, match="under 16"):
        pack_one(tmp_path, path)


def test_sides_are_multiples_of_16_by_cropping(tmp_path):
    frames = moving_squares(5, (250, 180))
    packed = pack_one(tmp_path, write_video(tmp_path / "x.mp4", frames), codec="h264", quality=8)
    assert (packed.metadata["width"], packed.metadata["height"]) == (240, 176)
    assert psnr(packed.rgb()[2], frames[2][2:178, 5:245]) > 30  # cropped, not squashed
