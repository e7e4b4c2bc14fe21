"""Folders of JPEG frames: gaps, damage, and EXIF orientations."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from shards import Source
from shards.errors import BadVideo
from tests.alarm import alarm
from tests.shards.media import jpeg, moving_squares, pack_one, write_video


def make_folder(path, frames, **more) -> Source:
    path.mkdir()
    for number, frame in enumerate(frames, 1):
        (path / f"{number:05d}.jpg").write_bytes(jpeg(frame, **more))
    return Source(path, 0, "k", name=path.name, fps="12")


def damage(path, how: str) -> None:
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


def test_a_folder_of_frames_becomes_a_video_codec_too(tmp_path):
    packed = pack_one(
        tmp_path, make_folder(tmp_path / "x", moving_squares(6, (160, 144))), codec="vp9"
    )
    assert packed.metadata["frames"] == 6
    assert packed.metadata["codec"] == "vp9"


@pytest.mark.parametrize(
    ("how", "kind"),
    [("gap", "incomplete"), ("cut", "corrupt"), ("text", "corrupt"), ("none", "no_frames")],
)
def test_a_bad_folder_has_a_verdict(tmp_path, how, kind):
    source = make_folder(tmp_path / "x", moving_squares(6))
    damage(source.path, how)
    with pytest.raises(BadVideo) as caught:
        pack_one(tmp_path, source)
    assert caught.value.kind == kind


def test_the_good_beginning_of_a_folder_may_be_kept(tmp_path):
    source = make_folder(tmp_path / "x", moving_squares(6))
    damage(source.path, "cut")
    packed = pack_one(tmp_path, source, keep_partial=2)
    assert packed.metadata["frames"] == 2
    assert "partial" in packed.metadata["notes"][0]


@pytest.mark.parametrize("what", ["pipe", "/dev/zero", "/proc/kmsg", "terabytes", "folder"])
@pytest.mark.parametrize("keep", [0, 2])
def test_what_is_not_a_picture_file_ends_the_folder_at_once(tmp_path, what, keep):
    source = make_folder(tmp_path / "x", moving_squares(6))
    third = source.path / "00003.jpg"
    third.unlink()
    if what == "pipe":
        os.mkfifo(third)
    elif what == "terabytes":
        with open(third, "wb") as file:
            file.truncate(1 << 40)
    elif what == "folder":
        third.mkdir()
    else:
        third.symlink_to(what)
    with alarm():
        if keep:
            assert pack_one(tmp_path, source, keep_partial=keep).metadata["frames"] == 2
            return
        with pytest.raises(BadVideo, match=r"00003\.jpg") as caught:
            pack_one(tmp_path, source)
    assert caught.value.kind == "corrupt"


def frames_of(folder, *numbers) -> list[bytes]:
    return [(folder / f"{number:05d}.jpg").read_bytes() for number in numbers]


def stored_frames(packed) -> list[bytes]:
    return [packed.jpeg(t) for t in range(len(packed.table))]


@pytest.mark.parametrize(("part", "numbers"), [((0, 6), range(1, 7)), ((2, 3), range(3, 6))])
def test_a_part_of_the_frames_is_stored_bit_for_bit(tmp_path, part, numbers):
    source = replace(make_folder(tmp_path / "x", moving_squares(6)), frames=part)
    packed = pack_one(tmp_path, source)
    assert stored_frames(packed) == frames_of(source.path, *numbers)
    assert packed.metadata["remuxed"]
    assert packed.metadata["segment"] == [part[0] / 12, sum(part) / 12]


def test_fewer_frames_than_the_list_has_are_refused(tmp_path):
    source = replace(make_folder(tmp_path / "x", moving_squares(6)), frames=(3, 4))
    with pytest.raises(BadVideo, match="4 frames from 3 on, the folder 6 in all") as caught:
        pack_one(tmp_path, source)
    assert caught.value.kind == "incomplete"


def test_numbers_of_frames_for_a_video_file_are_refused(tmp_path):
    path = write_video(tmp_path / "x.mp4", moving_squares(6))
    with pytest.raises(BadVideo, match="not a folder of frames"):
        pack_one(tmp_path, Source(path, 0, "k", frames=(0, 6)))


def test_optical_flow_beside_the_frames_is_left_out(tmp_path):
    source = make_folder(tmp_path / "x", moving_squares(4))
    wanted = frames_of(source.path, 1, 2, 3, 4)
    for number in range(1, 5):
        (source.path / f"{number:05d}.jpg").rename(source.path / f"img_{number:05d}.jpg")
        for axis in "xy":
            (source.path / f"flow_{axis}_{number:05d}.jpg").write_bytes(jpeg(moving_squares(1)[0]))
    assert stored_frames(pack_one(tmp_path, source)) == wanted


def test_a_segment_of_a_folder_is_cut_out(tmp_path):
    source = make_folder(tmp_path / "x", moving_squares(12))
    packed = pack_one(tmp_path, replace(source, start=0.5, end=1.0))
    assert packed.metadata["frames"] == 6
    assert packed.metadata["segment"] == [0.5, 1.0]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_segment_after_the_end_is_named(tmp_path, kind):
    source = make_folder(tmp_path / "x", moving_squares(6))
    if kind == "file":
        source = replace(source, path=write_video(tmp_path / "x.mp4", moving_squares(6)))
    with pytest.raises(BadVideo, match="begins at 9 s, the video ends at 0"):
        pack_one(tmp_path, replace(source, start=9.0, end=12.0))
