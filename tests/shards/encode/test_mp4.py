"""The mp4 of a sample: frame table, rate, closed GOPs, fragments, the same bytes each time."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from shards import ShardSettings, Source, build_split, open_split
from shards.encode.jpeg_folder import read_jpeg_header
from shards.encode.mp4 import Mp4Writer, VideoFormat, frame_table
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


@pytest.fixture(scope="module")
def gop_sets(tmp_path_factory, clip):
    root = tmp_path_factory.mktemp("gops")
    for codec in GOP_CODECS:
        settings = ShardSettings(codec=codec, workers=1)
        sources = [Source(clip, 0, "a"), Source(clip, 0, "b")]
        assert build_split(sources, root, codec, ["x"], settings).exit_code == 0
    return root


@pytest.mark.parametrize("codec", ["mjpeg", *GOP_CODECS])
def test_the_frame_table_is_the_containers(tmp_path, clip, codec):
    packed = pack_one(tmp_path, clip, codec=codec)
    found = packets(packed.mp4)
    assert [list(p[:2]) for p in found] == packed.table[:, :2].tolist()  # offset, size
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


@pytest.mark.parametrize("codec", ["mjpeg", *GOP_CODECS])
def test_the_same_input_makes_the_same_bytes(tmp_path, clip, codec):
    assert pack_one(tmp_path, clip, codec=codec).mp4 == pack_one(tmp_path, clip, codec=codec).mp4


def test_the_file_names_no_encoder_and_no_time(tmp_path, clip):
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
