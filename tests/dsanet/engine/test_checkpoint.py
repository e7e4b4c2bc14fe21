"""Checkpoints: a writer that dies at any point leaves a folder that can be read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dsanet.engine import EngineError
from dsanet.engine import checkpoint as module
from dsanet.engine.checkpoint import CheckpointFolder, find_checkpoint, load_file, verify
from dsanet.engine.run_state import FORMAT, read_checkpoint


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def state(step: int) -> dict[str, Any]:
    return {"format": FORMAT, "step": step, "weights": torch.full((1000,), float(step))}


def newest_step(folder: CheckpointFolder, report: Callable[[str], Any]) -> int:
    """Step in the content of the newest intact checkpoint."""
    path = folder.newest_intact(report)
    assert path is not None
    return int(load_file(path)["step"])


def killer(real: Any, at: int) -> Any:
    """`real`, until the call number `at`, which never returns."""
    calls = iter(range(1000))

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == at:
            raise Killed
        return real(*args, **kwargs)

    return call


POINTS = [
    (torch, "save", 0),
    (os, "fsync", 0),
    (module, "_digest", 0),
    (Path, "replace", 0),
    (os, "fsync", 1),
    (Path, "unlink", 0),
]


@pytest.mark.parametrize(("owner", "name", "at"), POINTS)
def test_a_writer_killed_anywhere_leaves_the_newest_complete_one(
    owner: Any, name: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CheckpointFolder(tmp_path, keep=1)
    folder.save(1, state(1))
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killer(getattr(owner, name), at))
        with pytest.raises(Killed):
            folder.save(2, state(2))
    renamed = (owner, name) in ((os, "fsync"), (Path, "unlink")) and (name != "fsync" or at == 1)
    assert newest_step(CheckpointFolder(tmp_path), pytest.fail) == (2 if renamed else 1)
    folder.remove_partial()
    assert not list(tmp_path.glob("*.partial"))
    folder.save(3, state(3))
    assert [path.name[:14] for path in folder.files()] == ["step-000000003"]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_file_is_refused_and_the_one_before_it_taken(damage: str, tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(1, state(1))
    newest = folder.save(2, state(2))
    content = newest.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    newest.write_bytes({"flip": flipped, "cut": content[:middle], "empty": b""}[damage])
    lines: list[str] = []
    assert newest_step(folder, lines.append) == 1
    assert len(lines) == 1
    assert str(newest) in lines[0]
    assert newest.exists(), "a reader has renamed a file without being asked to"
    folder.newest_intact(lines.append, set_aside=True)
    assert [path.name[:14] for path in folder.files()] == ["step-000000001"]


def test_only_damaged_ones_is_an_error_and_none_is_not(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    assert folder.newest_intact(pytest.fail) is None
    folder.save(1, state(1)).write_bytes(b"nonsense")
    with pytest.raises(EngineError, match="all 1 checkpoints are damaged"):
        folder.newest_intact(lambda line: None)


def test_the_last_checkpoint_of_a_run_is_the_newest_intact_one(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    intact, damaged = folder.save(1, state(1)), folder.save(2, state(2))
    damaged.write_bytes(b"nonsense")
    lines: list[str] = []
    assert find_checkpoint(tmp_path, "last", lines.append) == intact
    [line] = lines
    assert line.startswith(f"WARNING: {damaged}: damaged")
    with pytest.raises(EngineError, match=f"{damaged}: damaged"):
        find_checkpoint(damaged, "last", pytest.fail)


def test_a_damaged_best_checkpoint_is_an_error_that_names_the_last(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    best = folder.save(1, state(1))
    folder.update_best(best, 0.5)
    assert find_checkpoint(tmp_path, "best", pytest.fail) == best
    best.write_bytes(b"nonsense")
    with pytest.raises(EngineError, match=f"{best}: damaged.*--which last"):
        find_checkpoint(tmp_path, "best", pytest.fail)


def test_the_best_one_is_kept_beside_the_last(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    folder.update_best(folder.save(1, state(1)), 0.5)
    for step, score in ((2, 0.4), (3, None), (4, 0.5)):
        folder.update_best(folder.save(step, state(step)), score)
    assert [int(path.name[5:14]) for path in folder.files()] == [1, 3, 4]
    best = folder.best()
    assert best is not None
    assert best[1] == 0.5


def test_of_two_checkpoints_of_a_step_the_later_one_counts(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    # Names end in a hash, so their order says nothing about the time.
    earlier, later = sorted((folder.save(1, state(value)) for value in (10, 11)), reverse=True)
    expected = load_file(later)["step"]
    os.utime(earlier, ns=(1, 1))
    os.utime(later, ns=(2, 2))
    assert folder.files() == [earlier, later]
    assert newest_step(folder, pytest.fail) == expected


def test_the_checkpoint_just_saved_is_never_pruned(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=1)
    folder.save(9, state(9))
    assert folder.save(3, state(3)).is_file()


def test_a_checkpoint_that_vanishes_while_listed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CheckpointFolder(tmp_path)
    gone, kept = folder.save(1, state(1)), folder.save(2, state(2))
    listed = list(tmp_path.iterdir())
    gone.unlink()
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(listed))
    assert folder.files() == [kept]
    assert folder.size() == kept.stat().st_size


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"file": "x"}', '{"file": 1, "value": 2}'])
def test_a_mark_that_was_cut_short_marks_nothing(content: str, tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    path = folder.save(1, state(1))
    (tmp_path / "best.json").write_text(content)
    assert folder.best() is None
    folder.update_best(path, 0.1)
    assert folder.best() == (path, 0.1)


def test_a_full_disk_is_an_error_that_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(1, state(1))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(EngineError, match="No space left on device"):
            folder.save(2, state(2))
    assert [path.name[:14] for path in folder.files()] == ["step-000000001"]
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"layer.weight": torch.zeros(2)}, "was not written by train.py"),
        ([1, 2], "was not written by train.py"),
        ({"format": FORMAT + 1}, f"has format {FORMAT + 1}"),
        ({"format": FORMAT, "samples": 4}, "lacks average, classes"),
    ],
)
def test_a_file_that_is_not_a_checkpoint_of_this_version_is_refused(
    content: Any, reason: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(EngineError, match=reason):
        read_checkpoint(tmp_path / "x.pt")


def test_a_checkpoint_of_another_version_is_not_taken_for_damaged(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(1, state(1))
    path = folder.save(2, state(2) | {"format": FORMAT + 1})
    newest = folder.newest_intact(pytest.fail, set_aside=True)
    assert newest == path
    with pytest.raises(EngineError, match="has format"):
        read_checkpoint(newest)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"model": pytest.fail}, path)
    with pytest.raises(EngineError, match=r"evil\.pt: not a torch\.save file") as error:
        load_file(path)
    assert "weights_only" not in str(error.value)  # torch's message advises to run the code


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for read in (load_file, verify):
        path = tmp_path / "step-000000001-0123456789abcdef.pt"
        with pytest.raises(EngineError, match=f"{path}: no such checkpoint"):
            read(path)
