"""train.py: continued runs, several processes, what a run leaves behind."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dsanet.engine.execution import missing_compiler
from shards import ShardSettings, Source, build_split
from tests.conftest import CLASSES
from tests.integration.scripts import (
    ROOT,
    course,
    environment,
    finish,
    launch,
    records,
    run_script,
    train_here,
)

Start = Callable[..., list[subprocess.Popen[str]]]


def wait_for_steps(run: Path, steps: int, process: subprocess.Popen[str]) -> None:
    """Block until metrics.jsonl has so many lines or the process has ended."""
    path = run / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if path.is_file() and path.read_bytes().count(b"\n") >= steps:
            return
        time.sleep(0.01)


def train(shards: Path, tiny: Path, out: Path, *more: object) -> tuple[object, ...]:
    return ("train.py", "--data", shards, "--config", tiny, "--out", out, *more)


def weights(run: Path) -> dict[str, torch.Tensor]:
    newest = sorted((run / "checkpoints").glob("step-*.pt"))[-1]
    return torch.load(newest, weights_only=True)["model"]


def kill_and_continue(
    start: Start, command: tuple[object, ...], run: Path, kills: int, seed: int
) -> None:
    """SIGKILL the run at random instants, each time a little further, then let it end."""
    rng = random.Random(seed)
    for _ in range(kills):
        [process] = start(*command)
        wait_for_steps(run, rng.randrange(1, 12), process)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = run_script(*command)
    assert done.returncode == 0, done.stdout + done.stderr


def assert_same_run(run: Path, undisturbed: Path) -> None:
    assert course(run) == course(undisturbed)
    expected = weights(undisturbed)
    assert all(torch.equal(value, expected[name]) for name, value in weights(run).items())
    assert records(run, "val") == records(undisturbed, "val")


def test_a_killed_run_continues_to_the_same_bits(
    small_shards: Path, tiny: Path, trained: Path, tmp_path: Path, start: Start
) -> None:
    # A checkpoint after every step, so that many of the kills fall into the writing of one.
    command = train(small_shards, tiny, tmp_path / "run", "--checkpoint.every_steps", 1)
    kill_and_continue(start, command, tmp_path / "run", kills=5, seed=0)
    assert_same_run(tmp_path / "run", trained)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_killed_run_continues_to_the_same_bits_fifty_times(
    seed: int, small_shards: Path, tiny: Path, trained: Path, tmp_path: Path, start: Start
) -> None:
    command = train(small_shards, tiny, tmp_path / "run", "--checkpoint.every_steps", 1)
    kill_and_continue(start, command, tmp_path / "run", kills=5, seed=1 + seed)
    assert_same_run(tmp_path / "run", trained)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_signal_saves_at_the_next_step_and_the_run_continues(
    number: int, code: int, small_shards: Path, tiny: Path, trained: Path, tmp_path: Path,
    start: Start,
) -> None:  # fmt: skip
    command = train(small_shards, tiny, tmp_path / "run")
    [process] = start(*command)
    wait_for_steps(tmp_path / "run", 2, process)
    process.send_signal(number)
    done = finish([process])
    assert done.returncode == code, done.stdout + done.stderr
    assert "run the same command again to continue" in done.stdout
    assert not done.stderr
    assert 0 < len(records(tmp_path / "run")) < 10
    assert run_script(*command).returncode == 0
    assert_same_run(tmp_path / "run", trained)


def test_two_processes_under_torchrun_train_as_one(
    small_shards: Path, tiny: Path, trained: Path, tmp_path: Path
) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    words = (sys.executable, *launcher, *train(small_shards, tiny, tmp_path / "two"))
    done = subprocess.run(
        [*map(str, words)], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr
    one, two = course(trained), course(tmp_path / "two")
    assert [step[:2] for step in one] == [step[:2] for step in two]
    # The same groups and draws; only sums are taken in another order.
    np.testing.assert_allclose([s[2:] for s in one], [s[2:] for s in two], rtol=1e-3)


@pytest.mark.slow
def test_a_compiled_network_on_two_processes_warns_of_nothing(
    small_shards: Path, tiny: Path, trained: Path, tmp_path: Path
) -> None:
    if missing := missing_compiler(torch.device("cpu")):
        pytest.skip(f"torch.compile needs {missing}")
    more = ("--compile", "true", "--model", "tsn_i3d_r18", "--network.blocks", "[1, 1, 1, 1]")
    more += ("--validation.split", "null", "--epoch_limit", 1)
    words = train(small_shards, tiny, tmp_path / "run", *more)
    done = finish(launch(*words, processes=2), timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr
    assert [step[:2] for step in course(tmp_path / "run")] == [s[:2] for s in course(trained)[:5]]


def test_a_run_changes_its_world_size_in_mid_epoch(
    small_shards: Path, tiny: Path, trained: Path, tmp_path: Path, start: Start
) -> None:
    command = train(small_shards, tiny, tmp_path / "run", "--checkpoint.every_steps", 1)
    both = start(*command, processes=2)
    wait_for_steps(tmp_path / "run", 3, both[0])
    both[1].send_signal(signal.SIGTERM)  # one gets it, all agree
    assert finish(both).returncode == 143
    taken = len(records(tmp_path / "run"))
    assert 0 < taken < 10
    done = run_script(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    one, other = course(trained), course(tmp_path / "run")
    assert [step[:2] for step in one] == [step[:2] for step in other]
    np.testing.assert_allclose([s[2:] for s in one], [s[2:] for s in other], rtol=1e-3)


def test_the_end_of_another_process_is_told_in_one_line(
    small_shards: Path, tiny: Path, tmp_path: Path, start: Start
) -> None:
    both = start(*train(small_shards, tiny, tmp_path / "run"), processes=2)
    wait_for_steps(tmp_path / "run", 2, both[0])
    both[1].kill()
    done = finish(both[:1])
    assert done.returncode == 1
    assert "another process of this run has ended" in done.stderr
    assert "Traceback" not in done.stderr


def test_mixed_videos_are_the_same_after_a_kill_and_on_two_processes(
    small_shards: Path, tiny: Path, trained: Path, tmp_path: Path, start: Start
) -> None:
    more = ("--loss.mixup", 0.4, "--loss.cutmix", 1, "--checkpoint.every_steps", 1)
    more += ("--epoch_limit", 1)
    one, killed, two = (
        train(small_shards, tiny, tmp_path / name, *more) for name in ("one", "killed", "two")
    )
    assert run_script(*one).returncode == 0
    kill_and_continue(start, killed, tmp_path / "killed", kills=1, seed=2)
    assert_same_run(tmp_path / "killed", tmp_path / "one")
    assert run_script(*two, processes=2).returncode == 0
    alone, both = course(tmp_path / "one"), course(tmp_path / "two")
    np.testing.assert_allclose([s[2:] for s in alone], [s[2:] for s in both], rtol=1e-3)
    plain = course(trained)[:5]
    assert [step[1] for step in alone] == [step[1] for step in plain]
    assert not np.allclose([s[2] for s in alone], [s[2] for s in plain], rtol=1e-2)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    small_shards: Path, tiny: Path, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    newest = sorted((tmp_path / "run" / "checkpoints").glob("step-*.pt"))[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    done = run_script(*train(small_shards, tiny, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert f"{newest}: damaged" in done.stdout
    assert "continuing after step 5" in done.stdout
    assert_same_run(tmp_path / "run", trained)


def test_what_a_run_leaves_behind(trained: Path, small_shards: Path) -> None:
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["model"] == "dsa_i3d_r18"
    assert config["data"] == str(small_shards)
    assert config["optim"]["clip_norm"] == 40.0
    starts = json.loads((trained / "environment.json").read_text())
    assert starts[0]["versions"]["torch"] == torch.__version__
    assert "--config" in starts[0]["command"]
    log = (trained / "log").read_text()
    assert "epoch 1: " in log
    assert "compute-bound" in log or "data-bound" in log
    assert [round(r["epoch"]) for r in records(trained, "val")] == [1, 2]
    keys = {"loss", "top1", "lr", "videos_per_second", "wait_share", "wait_by_stage_ms", "eta_s"}
    assert all(keys <= record.keys() for record in records(trained))


def test_every_sample_is_seen_once_an_epoch(trained: Path) -> None:
    steps = [record["ids"] for record in records(trained)]
    for epoch in (steps[:5], steps[5:]):
        assert sorted(i for ids in epoch for i in ids) == list(range(20))
    assert steps[:5] != steps[5:]


def test_a_finished_run_is_left_alone(small_shards: Path, trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    done = run_script("train.py", "--out", run, "--data", small_shards)
    assert done.returncode == 0, done.stderr
    assert (run / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()


def test_a_loss_that_is_no_number_stops_with_the_samples_and_a_dump(
    small_shards: Path, tiny: Path, tmp_path: Path
) -> None:
    command = train(small_shards, tiny, tmp_path / "run", "--optim.lr", "1e30")
    command += ("--optim.clip_norm", 0, "--schedule.warmup_epochs", 0)
    done = run_script(*command)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    [dump] = (tmp_path / "run" / "nonfinite").glob("step-*.pt")
    assert str(dump) in line
    state = torch.load(dump, weights_only=True)
    not_finite = [k for k, v in state["model"].items() if not torch.isfinite(v).all()]
    assert not not_finite, "the dump is not the state before the step"
    step = int(line.split(" in step ")[1].split(";")[0])
    again = run_script(
        *train(small_shards, tiny, tmp_path / "again", "--optim.lr", "1e30"),
        *("--optim.clip_norm", 0, "--schedule.warmup_epochs", 0, "--resume", dump),
    )
    assert again.returncode == 1
    assert f" in step {step};" in again.stderr
    assert not records(tmp_path / "again"), "the dump does not begin at the step it is of"


def test_shards_of_another_seed_are_refused_and_a_copy_is_not(
    small_videos: list[Source], small_shards: Path, trained: Path, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = shutil.copytree(trained, tmp_path / "run")
    for name, videos in (("train", small_videos[:20]), ("val", small_videos[20:])):
        build_split(videos, tmp_path / "other", name, CLASSES, ShardSettings(seed=7))
    assert train_here("--data", tmp_path / "other", "--out", run) == 1
    [line] = capfd.readouterr().err.splitlines()
    for part in (f"train of {small_shards}", f"train of {tmp_path}/other", "another order"):
        assert part in line
    copy = shutil.copytree(small_shards, tmp_path / "copy")
    assert train_here("--data", copy, "--out", run) == 0
