"""A run folder that is damaged, in the way, or full: one line, never a traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.scripts import eval_here, records, train_here

Start = Callable[..., int]


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def begin(small_shards: Path, tiny: Path) -> Start:
    """train.py with a run folder."""

    def start(out: Path, *more: object) -> int:
        return train_here("--data", small_shards, "--config", tiny, "--out", out, *more)

    return start


@pytest.mark.parametrize("content", [b"", b'[{"time": ', b'{"time": 1}', b"\xff\xfe\x00"])
def test_a_damaged_environment_is_set_aside(
    content: bytes, run: Path, begin: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    (run / "environment.json").write_bytes(content)
    assert begin(run) == 0
    warning = f"WARNING: {run}/environment.json: damaged, renamed to environment.json.damaged"
    assert warning in capfd.readouterr().out
    assert (run / "environment.json.damaged").read_bytes() == content
    assert len(json.loads((run / "environment.json").read_text())) == 1


def test_a_record_that_was_cut_short_is_set_aside(
    run: Path, begin: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    metrics = run / "metrics.jsonl"
    content = metrics.read_bytes()
    metrics.write_bytes(content + content[:20])
    assert begin(run) == 0
    assert f"{metrics}: 1 damaged line moved to" in capfd.readouterr().out
    assert metrics.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"{{{: ]", b"- 1\n", b"\xff\xfe\x00", b"optim: {lr: x}"])
def test_damaged_settings_are_replaced_by_those_of_the_checkpoint(
    content: bytes, run: Path, begin: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = (run / "config.yaml").read_text()
    (run / "config.yaml").write_bytes(content)
    assert begin(run, "--seed", 7) == 2
    out, err = capfd.readouterr()
    assert "using the settings in the newest checkpoint" in out
    assert err.startswith(f"error: {run}: was started with seed = 0, now seed = 7")
    assert begin(run) == 0
    now = (run / "config.yaml").read_text()
    assert now.replace(str(run), "") == whole.replace(whole.split("out: ")[1].split("\n")[0], "")


def test_damaged_settings_alone_are_one_line(
    run: Path, small_shards: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (run / "config.yaml").write_bytes(b"{{{: ]")
    assert train_here("--data", small_shards, "--out", run) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {run}/config.yaml: not valid YAML: ")


def test_evaluation_passes_over_a_damaged_newest_checkpoint(
    run: Path, small_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    *_, intact, damaged = sorted((run / "checkpoints").glob("step-*.pt"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    out = tmp_path / "scores"
    words = ("--data", small_shards, "--checkpoint", run, "--out", out, "--clips", 2, "--crops", 1)
    assert eval_here(*words) == 0
    assert f"WARNING: {damaged}: damaged" in capfd.readouterr().out.replace("\n", "")
    assert json.loads((out / "metrics.json").read_text())["checkpoint"] == str(intact)


def test_a_continued_run_does_not_need_its_initial_weights(
    run: Path, begin: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "imagenet.pth"
    assert begin(run, "--weights", gone, "--schedule.epochs", 3) == 0
    out = capfd.readouterr().out.replace("\n", "")
    assert f"not {gone}" in out
    assert "schedule.epochs: 2 -> 3" in out
    assert begin(tmp_path / "fresh", "--weights", gone) == 1


@pytest.mark.parametrize("place", ["run", "run/checkpoints"])
def test_a_file_in_the_place_of_a_folder_is_wrong_usage(
    place: str, begin: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    assert begin(tmp_path / "run") == 2
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}: is not a folder")


def test_a_folder_below_a_file_is_one_line(
    begin: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    assert begin(tmp_path / "file" / "run") == 1
    [line] = capfd.readouterr().err.splitlines()
    assert f"{tmp_path}/file" in line
    assert "Not a directory" in line


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system in memory with these options."""
    places = []

    def mount(options: str) -> Path:
        if os.geteuid() != 0:
            pytest.skip("mounting needs root")
        place = tmp_path / "mounted"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this root may not mount")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [("size=4k", "No space left on device"), ("ro", "Read-only file system")],
)
def test_a_disk_that_takes_nothing_is_one_line(
    options: str, message: str, begin: Start, mounted: Callable[[str], Path],
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    place = mounted(options)
    if "size" in options:
        (place / "full").write_bytes(bytes(4096))
    assert begin(place / "run") == 1
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {place}/run")
    assert message in line


def test_a_disk_without_room_for_checkpoints_is_found_before_the_first_step(
    begin: Start, mounted: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    place = mounted("size=2m")
    assert begin(place / "run") == 1
    [line] = capfd.readouterr().err.splitlines()
    assert "are free, its checkpoints need" in line
    assert not records(place / "run")
