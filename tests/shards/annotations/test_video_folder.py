"""A list stays inside the folder of videos, and names its files relative to it."""

from __future__ import annotations

import os

import pytest

from shards import ShardError
from shards.annotations.text import Place
from shards.annotations.video_folder import VideoFolder
from tests.shards.annotations.conftest import touch

KINETICS = "label,youtube_id,time_start,time_end\n"


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "list.txt", 7)


@pytest.mark.parametrize("name", ["../x.mp4", "a/../../x.mp4", "/etc/passwd", "..", "../videos2/x"])
def test_a_path_that_leads_out_is_refused(videos, place, name):
    with pytest.raises(ShardError, match=r"list\.txt, line 7: .*outside.*--allow-outside"):
        VideoFolder(videos).locate(name, place)
    path, _ = VideoFolder(videos, allow_outside=True).locate(name, place)
    assert os.path.abspath(path) == os.path.abspath(videos / name)


@pytest.mark.parametrize(
    "name", ["a/x.mp4", "./a/x.mp4", "a//x.mp4", "b/../a/x.mp4", "../videos/a/x.mp4", "{}/a/x.mp4"]
)
def test_spellings_of_one_path_are_one(videos, place, name):
    touch(videos, "a/x.mp4")
    path, stored = VideoFolder(videos).locate(name.format(videos), place)
    assert stored == "a/x.mp4"
    assert path.samefile(videos / "a/x.mp4")


def test_an_absolute_path_through_another_name_of_the_folder(tmp_path, videos, place):
    (tmp_path / "link").symlink_to(videos)
    for listed in (tmp_path / "link", videos):
        _, stored = VideoFolder(tmp_path / "link").locate(f"{listed}/a.mp4", place)
        assert stored == "a.mp4"


def test_links_that_lead_out_are_refused(tmp_path, videos, place):
    touch(tmp_path, "secret.mp4", "other/x.mp4")
    touch(videos, "a/x.mp4")
    (videos / "file.mp4").symlink_to(tmp_path / "secret.mp4")
    (videos / "folder").symlink_to(tmp_path / "other")
    (videos / "inside.mp4").symlink_to("a/x.mp4")
    (videos / "inner").symlink_to("a")
    folder = VideoFolder(videos)
    for name in ("file.mp4", "folder/x.mp4", "folder"):
        with pytest.raises(ShardError, match="through a symbolic link outside"):
            folder.locate(name, place)
        VideoFolder(videos, allow_outside=True).locate(name, place)
    for name in ("inside.mp4", "inner/x.mp4", "a/x.mp4", "absent/x.mp4"):
        assert folder.locate(name, place)[1] == name


def test_a_search_does_not_leave_the_folder(tmp_path, videos, place):
    touch(tmp_path, "other/deep/x.mp4")
    (videos / "folder").symlink_to(tmp_path / "other")
    (videos / "loop").symlink_to(".")
    folder = VideoFolder(videos)
    assert folder.find("x", "", place) is None
    assert len(folder.warnings) == 1
    assert "folder is a link" in folder.warnings[0]
    assert "--allow-outside" in folder.warnings[0]
    found = VideoFolder(videos, allow_outside=True).find("x", "", place)
    assert found is not None
    assert found[1] == "folder/deep/x.mp4"


@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        ("folder", "../x.mp4 0\n"), ("csv", "path,label\n../x.mp4,0\n"),
        ("somethingv1", "../x;Holding\n"), ("mmaction2", "../x.mp4 0\n"),
        ("mmaction2", "../x 10 0\n"), ("ucf101", "../x.avi 1\n"),
    ],
)  # fmt: skip
def test_no_list_leads_out(read, dataset, text):
    with pytest.raises(ShardError, match="outside"):
        read(dataset, text)


@pytest.mark.parametrize("video", ["../x", "/etc/passwd", "a/b"])
def test_ids_of_videos_are_not_paths(read, video):
    with pytest.raises(ShardError, match=r"line 2: .*not the id"):
        read("kinetics400", f"{KINETICS}x,{video},0,10\n")


def test_a_class_name_does_not_lead_out(read, videos):
    (source,) = read("kinetics400", f"{KINETICS}../..,abc,0,10\n").sources
    assert source.path.resolve().is_relative_to(videos.resolve())


@pytest.mark.parametrize("name", ["x" * 256, "é" * 128, "a/" * 2500, "a\0b", ""])
def test_names_that_no_file_has(videos, place, name):
    with pytest.raises(ShardError, match=r"line 7: .* is not a path"):
        VideoFolder(videos).locate(name, place)


def test_addresses_are_not_paths(videos, place):
    with pytest.raises(ShardError, match="address; download"):
        VideoFolder(videos).locate("https://example.org/a.mp4", place)


def test_absolute_paths_are_stored_relative(read, videos):
    touch(videos, "a.mp4")
    (source,) = read("folder", f"{videos}/a.mp4 0\n").sources
    assert source.name == "a.mp4"
