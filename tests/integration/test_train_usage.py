"""A user's mistake gets one line, the right exit code, and no traceback."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.scripts import run_script, train_here

Complain = Callable[..., str]


@pytest.fixture
def complaint(capfd: pytest.CaptureFixture[str]) -> Complain:
    """Run train.py with these words; the one line that it complains with."""

    def run(*words: object, code: int) -> str:
        assert train_here(*words) == code
        [line] = capfd.readouterr().err.splitlines()
        assert line.startswith("error: ")
        return line

    return run


def test_the_script_prints_one_line(small_shards: Path, tmp_path: Path) -> None:
    words = ("train.py", "--data", small_shards, "--out", tmp_path / "run", "--recipe", "dmo")
    done = run_script(*words)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "did you mean demo?" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--optim.lrr", 1), "did you mean optim.lr"),
        (("--optim.lr", "fast"), "optim.lr"),
        (("--recipe", "kinetic400"), "did you mean kinetics400"),
        (("--config", "nowhere.yaml"), "nowhere.yaml"),
        (("--batch.videos", 64), "20 videos, fewer than one batch of 64"),
        (("--runtime.precision", "fp16"), "needs a GPU"),
        (("--runtime.device", "cuda"), "finds no GPU"),
        (("--runtime.sync_batchnorm", "true"), "needs GPUs"),
        (("--model", "i3d_r18"), "take tsn_i3d_r18"),
        (("--sampling.frames", 0), "sampling.frames"),
    ],
)
def test_wrong_usage(
    complaint: Complain,
    words: tuple[object, ...],
    message: str,
    small_shards: Path,
    tiny: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    base = ("--data", small_shards, "--config", tiny, "--out", tmp_path / "run")
    assert message in complaint(*base, *words, code=2)


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (("--data", "nowhere"), "nowhere", 1),
        (("--model", "dsa_i3d_r19"), "dsa_i3d_r18", 2),
        (("--network.stages", "[7]"), "res2 to res5", 2),
        (("--network.beta", 0.01), "beta must select at least 2 of 16 channels", 2),
        (("--network.position", "V"), "position", 2),
        (("--weights", "nowhere.pth"), "nowhere.pth", 1),
    ],
)
def test_what_is_not_there(
    complaint: Complain,
    words: tuple[object, ...],
    message: str,
    code: int,
    small_shards: Path,
    tiny: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    base = ("--data", small_shards, "--config", tiny, "--out", tmp_path / "run")
    assert message in complaint(*base, *words, code=code)


def test_an_unknown_key_in_a_file(complaint: Complain, small_shards: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: dsa_i3d_r18\noptim: {momentun: 0.8}\n")
    words = ("--data", small_shards, "--config", path, "--out", tmp_path / "run")
    assert "did you mean optim.momentum" in complaint(*words, code=2)


def test_a_run_is_not_continued_as_another(
    complaint: Complain, small_shards: Path, trained: Path
) -> None:
    words = ("--data", small_shards, "--out", trained)
    assert "seed = 0, now seed = 7" in complaint(*words, "--seed", 7, code=2)
    message = complaint(*words, "--network.width", 16, code=2)
    assert "network.width = 8, now network.width = 16" in message


def test_other_shards_are_refused(
    complaint: Complain, small_shards: Path, trained: Path, tiny: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    shutil.copytree(small_shards, tmp_path / "shards")
    shutil.rmtree(tmp_path / "shards" / "train")
    shutil.copytree(tmp_path / "shards" / "val", tmp_path / "shards" / "train")
    words = ("--data", tmp_path / "shards", "--config", tiny, "--out", tmp_path / "run")
    message = complaint(*words, code=1)
    assert "was trained on 20 videos" in message


def test_print_config_merges_recipe_file_and_command_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optim: {momentum: 0.8}\n")
    words = ("train.py", "--optim.lr", 0.5, "--config", path, "--recipe", "kinetics400")
    done = run_script(*words, "--data", "x", "--out", "y", "--print_config")
    assert done.returncode == 0, done.stderr
    for line in ("lr: 0.5", "momentum: 0.8", "clip_norm: 40.0", "model: dsa_i3d_r50"):
        assert f"{line}\n" in done.stdout
