"""Kept scores: read back as written, without what a crash has spoilt, or dropped loudly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsanet.engine import EngineError
from dsanet.engine.evaluation.score_log import Journal, difference
from dsanet.engine.evaluation.scoring import ScoreTable
from dsanet.engine.launch.distributed import World
from dsanet.engine.launch.signals import Interrupted, Signals, Stop

SETTINGS: dict[str, Any] = {"checkpoint": "abc", "protocol": {"clips": 8, "crops": (1, 3)}}


def table(ids: list[int]) -> ScoreTable:
    scores = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    ids_ = np.array(ids)
    return ScoreTable(ids_, ids_ % 7, scores[ids_])


class Rank(World):
    """One of several processes, all of which hear what the first says."""

    heard = b""

    def broadcast(self, data: bytes) -> bytes:
        if self.main:
            type(self).heard = data
        return type(self).heard

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        return [array, array]


def begin(out: Path, settings: dict[str, Any] = SETTINGS) -> tuple[Journal, ScoreTable, list[str]]:
    said: list[str] = []
    journal = Journal(out, 3, World())
    return journal, journal.begin(settings, said.append), said


def assert_same(found: ScoreTable, expected: ScoreTable) -> None:
    order = np.argsort(expected.ids)
    np.testing.assert_array_equal(found.ids, expected.ids[order])
    np.testing.assert_array_equal(found.labels, expected.labels[order])
    np.testing.assert_array_equal(found.scores, expected.scores[order])


def test_what_was_scored_is_found_again_without_padding(tmp_path: Path) -> None:
    journal, kept, _ = begin(tmp_path)
    assert not len(kept.ids)
    journal.add(table([5, -1, 2]))
    journal.add(table([9]))
    _, kept, said = begin(tmp_path)
    assert_same(kept, table([5, 2, 9]))
    assert not said


def test_records_of_all_processes_are_found_on_another_number_of_them(tmp_path: Path) -> None:
    for rank in range(3):
        journal = Journal(tmp_path, 3, Rank(rank, 3))
        journal.begin(SETTINGS, print)
        journal.add(table([10 + rank, 20 + rank]))
    ids = [10, 11, 12, 20, 21, 22]
    assert_same(begin(tmp_path)[1], table(ids))
    # A process that sees other files than the first one believes the first.
    first, second = (Journal(tmp_path, 3, Rank(rank, 2)) for rank in (0, 1))
    first.begin(SETTINGS, print)
    (tmp_path / "partial" / "scores-00002.bin").unlink()
    assert_same(second.begin(SETTINGS, print), table(ids))


@pytest.mark.parametrize("cut", [1, 4, 20])
def test_a_record_that_was_cut_short_is_scored_again(cut: int, tmp_path: Path) -> None:
    journal, *_ = begin(tmp_path)
    journal.add(table([1, 2, 3]))
    content = journal.file.read_bytes()
    journal.file.write_bytes(content[:-cut])
    journal, kept, _ = begin(tmp_path)
    assert_same(kept, table([1, 2]))
    journal.add(table([3, 4]))
    assert_same(begin(tmp_path)[1], table([1, 2, 3, 4]))


@pytest.mark.parametrize("at", range(0, 32, 5))
def test_a_record_that_was_spoilt_is_scored_again(at: int, tmp_path: Path) -> None:
    journal, *_ = begin(tmp_path)
    journal.add(table([1, 2]))
    content = bytearray(journal.file.read_bytes())
    content[at] ^= 1
    journal.file.write_bytes(content)
    assert_same(begin(tmp_path)[1], table([2]))


def test_blocks_of_zeros_after_a_crash_are_no_video_0(tmp_path: Path) -> None:
    journal, *_ = begin(tmp_path)
    journal.add(table([1]))
    size = journal.file.stat().st_size
    with journal.file.open("ab") as file:
        file.truncate(3 * size)
    assert_same(begin(tmp_path)[1], table([1]))


def test_scores_made_in_another_way_are_dropped_and_the_difference_named(tmp_path: Path) -> None:
    journal, *_ = begin(tmp_path)
    journal.add(table([1]))
    other = SETTINGS | {"protocol": {"clips": 4, "crops": (1, 3)}}
    _, kept, [line] = begin(tmp_path, other)
    assert not len(kept.ids)
    assert "protocol.clips was 8, now it is 4" in line
    assert "starting anew" in line
    assert begin(tmp_path, other)[2] == []


def test_a_damaged_mark_starts_anew(tmp_path: Path) -> None:
    journal, *_ = begin(tmp_path)
    journal.add(table([1]))
    (journal.folder / "settings.json").write_text('{"checkp')
    _, kept, [line] = begin(tmp_path)
    assert not len(kept.ids)
    assert line.endswith(f"starting anew, {journal.folder / 'settings.json'} is damaged")


def test_nothing_but_scores_is_ever_removed(tmp_path: Path) -> None:
    own = tmp_path / "partial" / "thesis.txt"
    own.parent.mkdir()
    own.write_text("mine")
    journal, *_ = begin(tmp_path)
    journal.add(table([1]))
    begin(tmp_path, SETTINGS | {"checkpoint": "other"})
    journal.remove()
    assert [path.name for path in own.parent.iterdir()] == ["thesis.txt"]
    own.unlink()
    journal.remove()
    assert not journal.folder.exists()


def test_a_folder_that_cannot_be_is_told_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match=r"file/partial: Not a directory; .* --out"):
        begin(tmp_path / "file")


def test_differences_are_named_by_their_place() -> None:
    assert difference({"a": {"b": 1}}, {"a": {"b": 1}}) is None
    assert difference({"a": {"b": 1}}, {"a": {"b": 2}}) == "a.b was 1, now it is 2"
    assert difference({"a": 1}, {"a": 1, "b": 2}) == "b was None, now it is 2"


def test_all_leave_when_one_is_told(tmp_path: Path) -> None:
    signals = Signals()
    journal = Journal(tmp_path, 3, World(), signals)
    journal.begin(SETTINGS, print)
    assert not journal.add(table([1]))
    journal.agree()
    signals.stop = Stop.REQUEUE
    assert journal.add(table([2]))
    with pytest.raises(Interrupted) as told:
        journal.agree()
    assert told.value.stop.exit_code == 138
