"""Finding videos: files, folders, patterns and addresses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dsanet.engine import EngineError
from dsanet.engine.evaluation import inputs
from dsanet.engine.evaluation.inputs import find_videos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/1.mp4", "a/b/2.WEBM", "a/notes.txt", "a/.hidden.mp4", "c[1].mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"video")
    os.mkfifo(tmp_path / "a" / "pipe.mp4")
    (tmp_path / "downloads").mkdir()
    return tmp_path


def names(folder: Path, *words: str) -> list[str]:
    return [video.name for video in find_videos(words, folder / "downloads")]


def test_a_folder_gives_the_videos_below_it(folder: Path) -> None:
    assert names(folder, f"{folder}/a") == [f"{folder}/a/1.mp4", f"{folder}/a/b/2.WEBM"]


def test_a_pattern_gives_its_files_and_a_file_of_this_name_itself(folder: Path) -> None:
    assert names(folder, f"{folder}/**/*.WEBM") == [f"{folder}/a/b/2.WEBM"]
    assert names(folder, f"{folder}/c[1].mp4") == [f"{folder}/c[1].mp4"]


def test_a_video_that_is_named_twice_is_taken_once(folder: Path) -> None:
    one = f"{folder}/a/1.mp4"
    assert names(folder, one, f"{folder}/a", one) == [one, f"{folder}/a/b/2.WEBM"]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("nowhere.mp4", "no such file"),
        ("{}/a/pipe.mp4", "not a regular file"),
        ("{}/downloads", "no videos in this folder"),
        ("{}/*.avi", "no file matches"),
        ("memory://nothing/x.mp4", "cannot be fetched"),
        ("nosuchstore://x.mp4", "cannot be fetched"),
    ],
)
def test_what_names_nothing_is_refused(word: str, reason: str, folder: Path) -> None:
    with pytest.raises(EngineError, match=reason):
        names(folder, word.format(folder))


def test_an_address_is_fetched_into_its_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for name in ("/set/x.mp4", "/set/..%2f..%2fy.mp4"):
        store.pipe_file(name, b"12345")
        [video] = find_videos([f"memory:/{name}"], folder / "downloads")
        assert video.path.read_bytes() == b"12345"
        assert folder / "downloads" in video.path.resolve().parents
        assert video.name == f"memory:/{name}"
    monkeypatch.setattr(inputs, "MAX_DOWNLOAD", 4)
    with pytest.raises(EngineError, match="larger than"):
        find_videos(["memory://set/x.mp4"], folder / "downloads")
