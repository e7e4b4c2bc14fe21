"""Folders of JPEG frames: gaps, damage, and EXIF orientations."""

from __future__ import annotations

import os

import pytest

from shards import Source
from shards.errors import BadVideo
from tests.alarm import alarm
from tests.shards.media import jpeg, moving_squares, pack_one


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
