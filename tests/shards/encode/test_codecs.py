"""Codecs, copies and folders of JPEGs: closed GOPs, fragment tables, bits that are not touched."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from shards import ShardSettings, Source, build_split, open_split
from shards.encode.jpeg_folder import read_jpeg_header
from shards.encode.mp4 import Mp4Writer, VideoFormat, frame_table
from shards.errors import BadVideo
from shards.format.tars import Window
from tests.shards.media import jpeg, moving_squares, pack_one, psnr, write_video

GOP_CODECS = ("h264", "hevc", "vp9")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "x.mp4"
    return write_video(path, moving_squares(19, (160, 144)))


def packets(data: bytes) -> list:
    with av.open(io.BytesIO(data), format="mp4") as container:
        return [(p.pos, p.size, p.is_keyframe, p.pts, p.dts) for p in container.demux() if p.size]


@pytest.mark.parametrize("codec", ["mjpeg", *GOP_CODECS])
def test_the_frame_table_is_the_containers(tmp_path, clip, codec):
    packed = pack_one(tmp_path, clip, codec=codec)
    found = packets(packed.mp4)
    assert [(p[0], p[1]) for p in found] == [(r["offset"], r["size"]) for r in packed.table]
    assert len(found) == packed.metadata["frames"] == 19
    assert len(packed.rgb()) == 19


@pytest.mark.parametrize("codec", ["mjpeg", *GOP_CODECS])
def test_a_player_sees_the_stated_rate(tmp_path, clip, codec):
    packed = pack_one(tmp_path, clip, codec=codec)
    with av.open(io.BytesIO(packed.mp4), format="mp4") as container:
        times = [frame.time for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 25
    assert times == pytest.approx([number / 25 for number in range(19)], abs=1e-4)


@pytest.mark.parametrize("codec", GOP_CODECS)
def test_gops_are_closed_and_as_long_as_asked(tmp_path, clip, codec):
    packed = pack_one(tmp_path, clip, codec=codec, gop=4)
    found = packets(packed.mp4)
    assert [p[2] for p in found] == [number % 4 == 0 for number in range(19)]
    assert all(pts == dts for *_, pts, dts in found)  # no frame is reordered


@pytest.fixture(scope="module")
def gop_sets(tmp_path_factory, clip):
    root = tmp_path_factory.mktemp("gops")
    for codec in GOP_CODECS:
        settings = ShardSettings(codec=codec, workers=1)
        sources = [Source(clip, 0, "a"), Source(clip, 0, "b")]
        assert build_split(sources, root, codec, ["x"], settings).exit_code == 0
    return root


@pytest.mark.parametrize("codec", GOP_CODECS)
def test_header_and_one_fragment_are_a_video(gop_sets, codec):
    split = open_split(gop_sets, codec)
    for i in range(len(split)):
        row = split.samples[i]
        data = split.tar_path(i).read_bytes()[row["offset"] : row["offset"] + row["size"]]
        first, count = row["first_fragment"], row["num_fragments"]
        ends = [int(end) for end in split.fragments[first : first + count + 1]]
        assert count == 5
        assert ends[-1] <= len(data)
        with av.open(io.BytesIO(data), format="mp4") as container:
            whole = [f.to_ndarray() for f in container.decode(video=0)]
        for g in range(count):
            part = data[: ends[0]] + data[ends[g] : ends[g + 1]]
            with av.open(io.BytesIO(part), format="mp4") as container:
                frames = [f.to_ndarray() for f in container.decode(video=0)]
            assert np.array_equal(frames, whole[4 * g : 4 * g + 4])


def test_sides_are_multiples_of_16_by_cropping(tmp_path):
    frames = moving_squares(5, (250, 180))
    packed = pack_one(tmp_path, write_video(tmp_path / "x.mp4", frames), codec="h264", quality=8)
    assert (packed.metadata["width"], packed.metadata["height"]) == (240, 176)
    assert psnr(packed.rgb()[2], frames[2][2:178, 5:245]) > 30  # cropped, not squashed


@pytest.mark.parametrize("codec", ["mjpeg", *GOP_CODECS])
def test_the_same_input_makes_the_same_bytes(tmp_path, clip, codec):
    assert pack_one(tmp_path, clip, codec=codec).mp4 == pack_one(tmp_path, clip, codec=codec).mp4


def test_nothing_of_the_encoder_or_the_hour_is_in_the_file(tmp_path, clip):
    assert b"Lavf" not in pack_one(tmp_path, clip).mp4
    assert b"Lavc" not in pack_one(tmp_path, clip).mp4


@pytest.mark.parametrize("quality", [2, 6, 31])
def test_frames_are_baseline_jpegs_without_jfif(tmp_path, clip, quality):
    packed = pack_one(tmp_path, clip, quality=quality)
    for t in range(len(packed.table)):
        assert read_jpeg_header(packed.jpeg(t)).is_baseline_420
        assert packed.jpeg(t)[2:4] == b"\xff\xdb"  # tables first, no application segment


def test_quality_trades_bytes_for_psnr(tmp_path):
    frames = moving_squares(8, (256, 192))
    path = write_video(tmp_path / "x.mp4", frames, options={"crf": "4"})
    made = [pack_one(tmp_path, path, quality=q) for q in (2, 6, 12)]
    sizes = [len(m.mp4) for m in made]
    quality = [np.mean([psnr(a, b) for a, b in zip(m.rgb(), frames, strict=True)]) for m in made]
    assert sizes == sorted(sizes, reverse=True)
    assert quality == sorted(quality, reverse=True)


# ---- copy: packets that already are what is asked for


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
def test_what_is_not_as_asked_is_encoded_again_and_says_why(tmp_path, options, rate, why):
    path = write_video(tmp_path / "x.mp4", moving_squares(9, (160, 144)), rate, options=options)
    packed = pack_one(tmp_path, path, codec="h264", copy=True)
    assert packed.metadata["remuxed"] == (why == "")
    assert any(why in note for note in packed.metadata["notes"]) or not why


def test_copy_looks_at_codec_size_and_shape(tmp_path, clip):
    for settings, why in (
        ({"codec": "vp9"}, "codec is h264"),
        ({"codec": "h264", "short_side": 64}, "short side"),
        ({"codec": "h264", "fps": "10"}, "frame rate"),
    ):
        packed = pack_one(tmp_path, clip, copy=True, **settings)
        assert any(why in note for note in packed.metadata["notes"]), packed.metadata["notes"]


# ---- folders of JPEG frames


def make_folder(path, frames, **more) -> Source:
    path.mkdir()
    for number, frame in enumerate(frames, 1):
        (path / f"{number:05d}.jpg").write_bytes(jpeg(frame, **more))
    return Source(path, 0, "k", name=path.name, fps="12")


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


def test_a_folder_of_frames_becomes_a_video_codec_too(tmp_path):
    packed = pack_one(
        tmp_path, make_folder(tmp_path / "x", moving_squares(6, (160, 144))), codec="vp9"
    )
    assert packed.metadata["frames"] == 6
    assert packed.metadata["codec"] == "vp9"


def spoil(path, how: str) -> None:
    third = path / "00003.jpg"
    data = third.read_bytes()
    if how == "gap":
        third.unlink()
    elif how == "cut":
        third.write_bytes(data[: len(data) // 2])
    elif how == "text":
        third.write_bytes(b"not a picture")
    else:
        for file in path.iterdir():
            file.unlink()


@pytest.mark.parametrize(
    ("how", "kind"),
    [("gap", "incomplete"), ("cut", "corrupt"), ("text", "corrupt"), ("none", "no_frames")],
)
def test_a_bad_folder_has_a_verdict(tmp_path, how, kind):
    source = make_folder(tmp_path / "x", moving_squares(6))
    spoil(source.path, how)
    with pytest.raises(BadVideo) as caught:
        pack_one(tmp_path, source)
    assert caught.value.kind == kind


def test_the_good_beginning_of_a_folder_may_be_kept(tmp_path):
    source = make_folder(tmp_path / "x", moving_squares(6))
    spoil(source.path, "cut")
    packed = pack_one(tmp_path, source, keep_partial=2)
    assert packed.metadata["frames"] == 2
    assert "partial" in packed.metadata["notes"][0]


def test_frame_table_of_a_written_window(tmp_path):
    with open(tmp_path / "w", "w+b") as file:
        file.write(b"before")
        window = Window(file, 6)
        writer = Mp4Writer(window, VideoFormat("mjpeg", 96, 64, Fraction(25)), ShardSettings())
        pictures = [jpeg(frame) for frame in moving_squares(3)]
        for picture in pictures:
            writer.write_jpeg(picture)
        writer.close()
        for row, picture in zip(frame_table(window), pictures, strict=True):
            window.seek(int(row["offset"]))
            assert window.read(int(row["size"])) == picture
