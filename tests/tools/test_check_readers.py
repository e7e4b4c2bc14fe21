"""The script that tries the readers of other projects."""

from __future__ import annotations

import sys

import pytest

from tools import check_readers


def test_every_reader_that_is_installed_opens_a_split(small_shards, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check_readers.py", str(small_shards / "train")])
    assert check_readers.main() == 0
    lines = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert lines.pop("tarfile and PyAV") == "20 videos, 480 frames"
    assert set(lines.values()) <= {"20 videos, 480 frames", "not installed"}


def test_a_reader_that_fails_is_named(small_shards, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check_readers.py", str(small_shards / "train")])
    monkeypatch.setattr(check_readers, "READERS", {"one": ("tarfile", lambda folder: [b"no mp4"])})
    assert check_readers.main() == 1
    assert "one: failed: " in capsys.readouterr().out


def test_a_folder_without_tars_is_wrong_usage(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["check_readers.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        check_readers.main()
