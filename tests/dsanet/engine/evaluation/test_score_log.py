"""The log of scores: read back as written, without damaged records, or deleted with a warning."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsanet.engine import EngineError
from dsanet.engine.evaluation.score_log import ScoreLog, _checksums, first_difference
from dsanet.engine.evaluation.scoring import ScoreTable
from dsanet.engine.launch.distributed import World
from dsanet.engine.launch.signals import Interrupted, Signals, Stop

SETTINGS: dict[str, Any] = {"checkpoint": "abc", "protocol": {"clips": 8, "crops": (1, 3)}}


def table(ids: list[int]) -> ScoreTable:
    scores = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    ids_ = np.array(ids)
    ranks = np.random.default_rng(1).integers(1, 4, (100, 2)).astype(np.int32)
    return ScoreTable(ids_, ids_ % 7, scores[ids_], ranks[ids_])


class Rank(World):
    """One of several processes that are run one after the other, rank 0 first."""

    sent = b""

    def broadcast(self, data: bytes) -> bytes:
        if self.main:
            type(self).sent = data
        return type(self).sent

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        return [array, array]


def open_log(
    out: Path, settings: dict[str, Any] = SETTINGS
) -> tuple[ScoreLog, ScoreTable, list[str]]:
    lines: list[str] = []
    log = ScoreLog(out, 3, 2, World())
    return log, log.open(settings, lines.append), lines


def assert_same(table: ScoreTable, expected: ScoreTable) -> None:
    order = np.argsort(expected.ids)
    np.testing.assert_array_equal(table.ids, expected.ids[order])
    np.testing.assert_array_equal(table.labels, expected.labels[order])
    np.testing.assert_array_equal(table.scores, expected.scores[order])
    np.testing.assert_array_equal(table.ranks, expected.ranks[order])


def test_scores_are_read_back_without_padding(tmp_path: Path) -> None:
    log, earlier, _ = open_log(tmp_path)
    assert not len(earlier.ids)
    log.append(table([5, -1, 2]))
    log.append(table([9]))
    _, earlier, lines = open_log(tmp_path)
    assert_same(earlier, table([5, 2, 9]))
    assert not lines


def test_scores_are_read_back_on_another_number_of_processes(tmp_path: Path) -> None:
    for rank in range(3):
        log = ScoreLog(tmp_path, 3, 2, Rank(rank, 3))
        log.open(SETTINGS, print)
        log.append(table([10 + rank, 20 + rank]))
    ids = [10, 11, 12, 20, 21, 22]
    assert_same(open_log(tmp_path)[1], table(ids))
    # All processes take what rank 0 has read, also where they see other files.
    first, second = (ScoreLog(tmp_path, 3, 2, Rank(rank, 2)) for rank in (0, 1))
    first.open(SETTINGS, print)
    (tmp_path / "partial" / "scores-00002.bin").unlink()
    assert_same(second.open(SETTINGS, print), table(ids))


@pytest.mark.parametrize("cut", [1, 4, 20])
def test_a_truncated_record_is_ignored(cut: int, tmp_path: Path) -> None:
    log, *_ = open_log(tmp_path)
    log.append(table([1, 2, 3]))
    content = log.file.read_bytes()
    log.file.write_bytes(content[:-cut])
    log, earlier, _ = open_log(tmp_path)
    assert_same(earlier, table([1, 2]))
    log.append(table([3, 4]))
    assert_same(open_log(tmp_path)[1], table([1, 2, 3, 4]))


@pytest.mark.parametrize("byte", range(0, 40, 5))
def test_a_damaged_record_is_ignored(byte: int, tmp_path: Path) -> None:
    log, *_ = open_log(tmp_path)
    log.append(table([1, 2]))
    content = bytearray(log.file.read_bytes())
    content[byte] ^= 1
    log.file.write_bytes(content)
    assert_same(open_log(tmp_path)[1], table([2]))


def test_zeros_after_a_crash_are_not_read_as_video_0(tmp_path: Path) -> None:
    log, *_ = open_log(tmp_path)
    log.append(table([1]))
    size = log.file.stat().st_size
    with log.file.open("ab") as file:
        file.truncate(3 * size)
    assert_same(open_log(tmp_path)[1], table([1]))


def test_scores_of_other_settings_are_deleted_and_the_difference_is_named(tmp_path: Path) -> None:
    log, *_ = open_log(tmp_path)
    log.append(table([1]))
    other = SETTINGS | {"protocol": {"clips": 4, "crops": (1, 3)}}
    _, earlier, [line] = open_log(tmp_path, other)
    assert not len(earlier.ids)
    assert "protocol.clips was 8, is now 4" in line
    assert "all videos are scored again" in line
    assert open_log(tmp_path, other)[2] == []


@pytest.mark.parametrize("content", ['{"checkp', "[" * 100_000, "[1]", "\x00"])
def test_with_damaged_settings_all_videos_are_scored_again(content: str, tmp_path: Path) -> None:
    log, *_ = open_log(tmp_path)
    log.append(table([1]))
    (log.folder / "settings.json").write_text(content)
    _, earlier, [line] = open_log(tmp_path)
    assert not len(earlier.ids)
    aside = log.folder / "settings.json.damaged"
    assert f"settings.json: damaged, renamed to {aside.name} and all videos are scored" in line
    assert aside.read_text() == content
    assert open_log(tmp_path)[2] == []


@pytest.mark.parametrize("name", ["settings.json", "scores-00000.bin", "scores-00007.bin"])
def test_a_pipe_in_the_log_is_renamed(name: str, tmp_path: Path) -> None:
    """Reading or appending to it would block for ever."""
    log, *_ = open_log(tmp_path)
    (log.folder / name).unlink(missing_ok=True)
    os.mkfifo(log.folder / name)
    log, earlier, [line] = open_log(tmp_path)
    assert not len(earlier.ids)
    assert f"{name}: damaged, renamed to {name}.damaged" in line
    log.append(table([1]))
    assert_same(open_log(tmp_path)[1], table([1]))


def test_a_file_in_the_place_of_the_log_is_renamed(tmp_path: Path) -> None:
    (tmp_path / "partial").write_text("mine")
    _, _, [line] = open_log(tmp_path)
    assert "renamed to partial.damaged" in line
    assert (tmp_path / "partial.damaged").read_text() == "mine"


@pytest.mark.parametrize(("ids", "labels"), [([9], [0]), ([-4], [0]), ([2**60], [0]), ([1], [7])])
def test_forged_records_are_set_aside(ids: list[int], labels: list[int], tmp_path: Path) -> None:
    """Their checksum is right, but no video of the split has such an id or label."""
    log, *_ = open_log(tmp_path)
    records = np.zeros(1, log.dtype)
    records["id"], records["label"] = ids, labels
    records["crc"] = _checksums(records)
    (log.folder / "scores-00003.bin").write_bytes(records.tobytes())
    lines: list[str] = []
    earlier = log.open(SETTINGS, lines.append, videos=9)
    assert not len(earlier.ids)
    [line] = lines
    assert "scores-00003.bin: damaged, renamed to scores-00003.bin.damaged" in line


def test_other_files_in_the_folder_are_not_deleted(tmp_path: Path) -> None:
    own = tmp_path / "partial" / "thesis.txt"
    own.parent.mkdir()
    own.write_text("mine")
    log, *_ = open_log(tmp_path)
    log.append(table([1]))
    open_log(tmp_path, SETTINGS | {"checkpoint": "other"})
    log.remove()
    assert [path.name for path in own.parent.iterdir()] == ["thesis.txt"]
    own.unlink()
    log.remove()
    assert not log.folder.exists()


def test_a_folder_that_cannot_be_made_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match=r"file/partial: cannot save scores: .*; .* --out"):
        open_log(tmp_path / "file")


def test_a_difference_is_named_by_its_key() -> None:
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 1}}) is None
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 2}}) == "a.b was 1, is now 2"
    assert first_difference({"a": 1}, {"a": 1, "b": 2}) == "b was None, is now 2"


def test_a_signal_ends_the_evaluation_on_all_processes(tmp_path: Path) -> None:
    signals = Signals()
    log = ScoreLog(tmp_path, 3, 2, World(), signals)
    log.open(SETTINGS, print)
    log.append(table([1]))
    assert not log.stop_requested
    log.raise_if_stopped()
    signals.stop = Stop.REQUEUE
    assert log.stop_requested
    with pytest.raises(Interrupted) as interruption:
        log.raise_if_stopped()
    assert interruption.value.stop.exit_code == 138
