"""What the batch scripts ask of Slurm: recorded by a fake srun, and read by sbatch --test-only."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines.decode.decoder import usable_cores
from tests.slurm.fakes import REPOSITORY, after, steps

TRAINING = ("k400", "mini-k200", "sthv1", "activitynet")
BATCH = (*TRAINING, "eval", "shard")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "slurm").glob("*.sh")), ids=lambda p: p.name)
def test_scripts_are_clean_shell(path: Path) -> None:
    if shutil.which("shellcheck") is None:
        assert os.environ.get("CI") != "true", "CI must install shellcheck"
        pytest.skip("shellcheck is not installed")
    command = ["shellcheck", "-x", path]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", TRAINING)
def test_training_starts_one_task_per_gpu_on_checked_nodes(batch, name: str) -> None:
    done = batch(name, "--data", "/tmp", "--out", "runs/x", "--optim.lr", "0.02")
    assert done.returncode == 0, done.stderr
    check, train, clean = steps(done.stdout)
    assert all({"--nodes=2", "--ntasks-per-node=1"} <= set(words) for words in (check, clean))
    assert clean[-4:] == ["rm", "-rf", "--", after(train, "--loader.scratch")]
    assert check[-3:] == ["check", "8", "/tmp"]
    assert {"--kill-on-bad-exit=1", "--cpus-per-task=12", "train.py"} <= set(train)
    assert after(train, "--out") == "runs/x"
    assert after(train, "--optim.lr") == "0.02"
    assert (REPOSITORY / f"dsanet/recipes/{after(train, '--recipe')}.yaml").is_file()


def test_runs_of_an_array_do_not_share_a_folder(batch) -> None:
    array = {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "3"}
    _, train, _ = steps(batch("k400", "--data=/tmp", **array).stdout)
    assert after(train, "--out") == "runs/dsanet-k400-40-3"


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        ((), {}, ["--data is missing", "sbatch"]),
        (("--data", "/tmp"), {"SLURM_GPUS_PER_NODE": "4"}, ["8 tasks but 4 GPUs", "per-node=4"]),
        (("--data", "/tmp"), {"SLURM_RESTART_COUNT": "51"}, ["restarted 51 times", "MAX_RESTARTS"]),
    ],
)
def test_mistakes_are_reported_before_a_step_starts(batch, arguments, environment, words) -> None:
    done = batch("k400", *arguments, **environment)
    assert done.returncode == 1
    assert not steps(done.stdout)
    assert done.stderr.startswith("error: ")
    assert all(word in done.stderr for word in words)


def requeued(tmp_path: Path) -> list[str]:
    """Jobs that were requeued since the last call."""
    path = tmp_path / "requeued"
    jobs = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return jobs


def test_a_step_ended_by_the_warning_signal_is_requeued_up_to_the_limit(
    batch, tmp_path: Path
) -> None:
    array = {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "3", "RC": "138"}
    done = batch("k400", "--data", "/tmp", **array)
    assert requeued(tmp_path) == ["40_3"]
    assert done.returncode == 138
    batch("k400", "--data", "/tmp", SLURM_RESTART_COUNT="50", **array)
    assert requeued(tmp_path) == []
    words = ("--data", "/tmp", "--runtime.max_requeues", "2")
    for restarts, jobs in (("1", ["40_3"]), ("2", [])):
        batch("k400", *words, SLURM_RESTART_COUNT=restarts, **array)
        assert requeued(tmp_path) == jobs
    failed = batch("k400", "--data", "/tmp", RC="7")
    assert failed.returncode == 7
    assert requeued(tmp_path) == []


def test_a_step_in_a_container_is_requeued_from_outside(batch, tmp_path: Path) -> None:
    container = {"CONTAINER": "image.sqsh", "PYTHON": "/only/in/the/image", "RC": "138"}
    assert batch("k400", "--data", "/tmp", **container).returncode == 138
    assert requeued(tmp_path) == ["41"]


@pytest.mark.parametrize("port", [None, "12345"])
def test_the_master_is_the_first_node(batch, port: str | None) -> None:
    """Its port is set by the user or, in each task, by the engine."""
    given = {} if port is None else {"MASTER_PORT": port}
    done = batch("k400", "--data", "/tmp", **given)
    assert f"MASTER n7:{port or ''}" in done.stderr.splitlines()


def test_a_task_uses_no_more_cores_than_slurm_allots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(96)))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "12")
    assert usable_cores() == 12
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    assert usable_cores() == 4


def test_a_node_without_all_its_gpus_is_named(batch, tmp_path: Path) -> None:
    programs = {
        "srun": 'while [ "$1" != bash ]; do shift; done; exec "$@"',
        "nvidia-smi": 'for i in 0 1 2 3 4 5 6; do echo "GPU $i: H100"; done',
    }
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    done = batch("k400", "--data", "/tmp", SCRATCH="/local")
    assert done.returncode == 1
    assert "shows 7 of 8 GPUs: sbatch --exclude=" in done.stderr


def test_containers_see_repository_shards_and_run(batch, tmp_path: Path) -> None:
    data, out = tmp_path / "shards", tmp_path / "runs" / "a"
    words = ("--data", str(data), "--out", str(out))
    extra = {"CONTAINER_MOUNTS": "/lustre:/lustre", "PYTHON": "", "SCRATCH": "/local/job_41"}
    _, pyxis = steps(batch("k400", *words, CONTAINER="image.sqsh", **extra).stdout)
    mounts = next(w for w in pyxis if w.startswith("--container-mounts=")).split("=")[1].split(",")
    assert "--container-image=image.sqsh" in pyxis
    assert {f"{p}:{p}" for p in (REPOSITORY, tmp_path, tmp_path / "runs", "/local")} <= set(mounts)
    assert "/lustre:/lustre" in mounts
    _, sif = steps(batch("k400", *words, CONTAINER="image.sif", **extra).stdout)
    start = sif.index("apptainer")
    assert sif[start : start + 3] == ["apptainer", "exec", "--nv"]
    assert sif[sif.index("image.sif") + 1 :][:2] == ["python", "train.py"]


@pytest.mark.parametrize(
    ("name", "arguments", "mounted"),
    [
        ("k400", ("--data", "/tmp", "--weights", "/w/r50.pth", "--out", "/tmp/a"), ("/tmp", "/w")),
        ("eval", ("--data", "/s/k400", "--checkpoint", "/r/a"), ("/s", "/r")),
        ("eval", ("--data", "https://host/k400", "--checkpoint", "/r/a"), ("/r",)),
        ("eval", ("--data=/s/k400", "--checkpoint=/r/a", "--out=/scores/a"), ("/s", "/scores")),
        ("eval", ("--data", "/s/k400", "--checkpoint", "/r/a/checkpoints/step.pt"), ("/r/a",)),
        (
            "shard",
            ("--videos", "/v/raw", "--list", "/l/a.csv", "--out", "/s/k400"),
            ("/v", "/l", "/s"),
        ),
    ],
)
def test_containers_see_what_is_read_and_written(batch, name, arguments, mounted) -> None:
    array = {f"SLURM_ARRAY_TASK_{k}": "0" for k in ("ID", "MIN", "COUNT")}
    done = batch(name, *arguments, CONTAINER="image.sqsh", SCRATCH="/local/job_41", **array)
    work = next(words for words in steps(done.stdout) if "check" not in words)
    mounts = next(w for w in work if w.startswith("--container-mounts=")).split("=")[1].split(",")
    expected = {str(REPOSITORY), *mounted, *(() if name == "shard" else ("/local",))}
    assert expected <= {mount.split(":")[0] for mount in mounts}
    assert "/:/" not in mounts
    assert not any("http" in mount for mount in mounts)


def test_shard_tasks_count_from_zero(batch) -> None:
    array = {f"SLURM_ARRAY_TASK_{k}": v for k, v in {"ID": "5", "MIN": "4", "COUNT": "8"}.items()}
    done = batch("shard", "--videos", "/raw", "--out", "/shards", "--split", "train", **array)
    (shard,) = steps(done.stdout)
    assert after(shard, "--task") == "1/8"
    assert after(shard, "--workers") == "12"


@pytest.mark.slurm
@pytest.mark.parametrize("name", BATCH)
def test_slurm_accepts_the_scripts_at_any_size(cluster, name: str) -> None:
    script = REPOSITORY / "slurm" / f"{name}.sh"
    sizes = [] if name == "shard" else [["--nodes=1"], ["--nodes=3"], ["--gpus-per-node=h100:4"]]
    for options in [[], *sizes, ["-p", "urgent", "-A", "project", "--qos=high"]]:
        cluster.run("sbatch", "--test-only", *options, script)
