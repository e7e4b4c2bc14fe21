"""The shipped scripts on a real Slurm: whatever interrupts a job, the training is the same.

Nodes are namespaces of this machine with a local disk each; tasks are real train.py processes over
gloo. The scripts are those of slurm/, changed by options of sbatch and train.py alone.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.lab import REPOSITORY, SHORT, Cluster, Job, Run, layout, write_video

pytestmark = pytest.mark.slurm
Train = Callable[..., Job]


@pytest.fixture(scope="module")
def limited(cluster: Cluster, undisturbed: Run, submit, tmp_path_factory) -> Job:
    """A job that comes near its time limit on node n3, while the first tests use the others."""
    cluster.before_limits_are_checked(5)
    folder = tmp_path_factory.mktemp("limited")
    job = submit(folder, 1, 2, "--nodelist=n3", "--time=2", "--signal=USR1@100", extra=())

    def extend() -> None:  # one warning is enough: give its second start all the time it needs
        cluster.until(lambda: "requeued" in job.log, job.id)
        cluster.run("scontrol", "update", f"JobId={job.id}", "TimeLimit=30")

    threading.Thread(target=extend, daemon=True).start()
    return job


@pytest.fixture(scope="module")
def chain(cluster: Cluster, limited: Job, options, tmp_path_factory) -> tuple[Job, str]:
    """Training on 2 nodes x 2 tasks, queued by slurm/chain.sh, and the id of its evaluation."""
    folder = tmp_path_factory.mktemp("chain")
    said = cluster.run(
        "slurm/chain.sh", *layout(2, 2), f"--output={folder}/%x.log", "slurm/k400.sh",
        "--out", folder / "run", *options, *SHORT,
        EVAL_SBATCH="--nodes=1", EVAL_ARGS="--clips 2 --crops 1 --loader.threads 1",
    )  # fmt: skip
    job, evaluation = re.findall(r"job (\d+)", said)
    return Job(cluster, job, Run(folder / "run"), folder / "dsanet-k400.log"), evaluation


def test_two_nodes_of_two_tasks_train_as_one_process(chain, undisturbed: Run) -> None:
    job, _ = chain
    job.wait()
    job.run.assert_same_training(undisturbed)
    assert re.search(r"^0: processes: 2 x n1 .*, 2 x n2 ", job.log, re.MULTILINE)


def test_evaluation_starts_when_training_has_ended(cluster: Cluster, chain) -> None:
    job, evaluation = chain
    trained, evaluated = job.wait(), cluster.wait(evaluation)
    assert evaluated["StartTime"] >= trained["EndTime"]
    (metrics,) = job.run.folder.glob("eval*/metrics.json")
    assert json.loads(metrics.read_text())["videos"] == 10


def test_evaluation_goes_on_after_a_signal(
    cluster: Cluster, options, undisturbed: Run, tmp_path: Path
) -> None:
    out = tmp_path / "eval"
    words = ("--checkpoint", undisturbed.folder, "--split", "train", "--batch", 1, "--out", out)
    job = cluster.run(
        "sbatch", "--parsable", *layout(1, 2), "--nodelist=n1", f"--output={tmp_path}/log",
        "slurm/eval.sh", *options[:2], *words, "--clips", 16, "--loader.threads", 1,
    ).strip()  # fmt: skip
    cluster.until(lambda: any(p.stat().st_size for p in out.glob("partial/scores-*.bin")), job)
    cluster.run("scancel", "--signal=USR1", job)
    assert cluster.wait(job)["Restarts"] == "1"
    (before,) = re.findall(r"(\d+) of 96 videos were scored before", (tmp_path / "log").read_text())
    assert 0 < int(before) < 96
    assert json.loads((out / "metrics.json").read_text())["videos"] == 96


def test_evaluation_is_cancelled_when_training_fails(cluster: Cluster, tmp_path: Path) -> None:
    shards = cluster.folder / "local" / "shards"  # every node has its own local disk
    cluster.run("srun", "--nodelist=n1", "mkdir", "-p", shards)
    words = ("slurm/k400.sh", "--data", shards, "--out", tmp_path / "run")
    nodes = (*layout(2, 1), "--nodelist=n[1-2]", f"--output={tmp_path}/%x.log")
    train, evaluation = re.findall(r"job (\d+)", cluster.run("slurm/chain.sh", *nodes, *words))
    cluster.wait(train, "FAILED")
    cluster.wait(evaluation, "CANCELLED")
    log = (tmp_path / "dsanet-k400.log").read_text()
    assert f"error: node n2 does not see {shards}" in log
    assert "--exclude=n2" in log


def test_time_limit(limited: Job, undisturbed: Run) -> None:
    assert limited.wait()["Restarts"] == "1"
    stops = re.findall(r"stopped by a signal after step (\d+)", limited.log)
    assert limited.resumed_at == [int(step) for step in stops]
    limited.run.assert_same_training(undisturbed, epochs=7)


def test_signal_from_outside(cluster: Cluster, train: Train, undisturbed: Run) -> None:
    job = train(2, 2, "--nodelist=n[1-2]")
    job.reach(7)
    for node in (1, 2):  # each read its own copy, which left with the job
        assert len([*cluster.local_disk(node).rglob("*.tar")]) == 12
    cluster.run("scancel", "--signal=USR1", job.id)
    assert job.wait()["Restarts"] == "1"
    assert not [*cluster.local_disk(1).glob("job_*")]
    (step,) = job.resumed_at
    assert step >= 7
    assert job.log.count("start 1,") == job.log.count("start 2,") == 1  # one log, appended to
    job.run.assert_same_training(undisturbed)


def test_preemption(cluster: Cluster, train: Train, undisturbed: Run) -> None:
    job = train(2, 1, "--nodelist=n[1-2]")
    job.reach(7)
    urgent = cluster.run(
        "sbatch", "--parsable", "--partition=urgent", "--nodelist=n[1-2]", "--exclusive",
        "--output=/dev/null", "--wrap=sleep 1",
    ).strip()  # fmt: skip
    assert cluster.wait(urgent)["JobState"] == "COMPLETED"
    assert job.wait()["Restarts"] == "1"
    (step,) = job.resumed_at
    assert step >= 7
    job.run.assert_same_training(undisturbed)


def test_node_failure(cluster: Cluster, train: Train, undisturbed: Run) -> None:
    job = train(2, 1, "--nodelist=n[1-2]")
    job.reach(7)
    cluster.kill_node(2)
    try:
        cluster.until(lambda: cluster.info(job.id)["Restarts"] == "1", job.id)
    finally:
        cluster.boot_node(2)
    job.wait()
    (step,) = job.resumed_at
    assert step in (5, 10)  # a periodic checkpoint
    job.run.assert_same_training(undisturbed)


def test_dead_rank_ends_the_job_and_the_same_line_resumes_it(
    cluster: Cluster, train: Train, undisturbed: Run
) -> None:
    job = train(1, 2, "--nodelist=n1")
    job.reach(7)
    pids = [int(pid) for pid in cluster.run("ip", "netns", "pids", "dsanet-n1").split()]
    victim = next(pid for pid in pids if rank_of(pid) == "1")
    os.kill(victim, signal.SIGKILL)
    assert job.wait("FAILED")["Restarts"] == "0"
    again = train(2, 1)
    again.wait()
    (step,) = again.resumed_at
    assert step in (5, 10)  # a periodic checkpoint: the job went on while its end was arranged
    again.run.assert_same_training(undisturbed)


def rank_of(pid: int) -> str:
    """Rank of a train.py process, as its environment says; empty for any other process."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has ended since
        return ""
    ranks = [v.split(b"=")[1].decode() for v in variables if v.startswith(b"SLURM_PROCID=")]
    return ranks[0] if ranks and b"train.py" in command else ""


def test_shards_of_an_array_are_those_of_one_task(cluster: Cluster, tmp_path: Path) -> None:
    names = [f"{i}.mp4" for i in range(12)]
    for i, name in enumerate(names):
        write_video(tmp_path / name, seed=i)
    (tmp_path / "list").write_text("".join(f"{name} {i % 3}\n" for i, name in enumerate(names)))
    words = ("--dataset", "folder", "--videos", tmp_path, "--list", tmp_path / "list")
    words = (*words, "--split", "train", "--tar-samples", "3", "--out")
    array = ("--array=4-6", "--cpus-per-task=1", f"--output={tmp_path}/log-%a")
    job = cluster.run(
        "sbatch", "--parsable", *array, "slurm/shard.sh", *words, tmp_path / "array"
    ).strip()
    for task in (4, 5, 6):
        cluster.wait(f"{job}_{task}")
    cluster.run(sys.executable, "tools/shard.py", *words, tmp_path / "one", "--workers", 1)
    tars = sorted(path.name for path in (tmp_path / "one" / "train").glob("*.tar"))
    assert len(tars) == 4
    for name in (*tars, "manifest.json"):
        one, array_made = (tmp_path / kind / "train" / name for kind in ("one", "array"))
        assert one.read_bytes() == array_made.read_bytes(), name


def test_what_sbatch_refuses_is_said_without_a_traceback(
    cluster: Cluster, options, tmp_path: Path
) -> None:
    words = (REPOSITORY / "slurm" / "submit.py", "k400", *options, "--out", tmp_path / "run")
    done = subprocess.run(
        [sys.executable, *map(str, words), "--partition", "nowhere"],
        env=cluster.environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    *reasons, last = done.stderr.splitlines()
    assert "invalid partition specified: nowhere" in reasons[0]
    assert last == "error: sbatch refused the job for the reason above"
    assert "Traceback" not in done.stderr


def test_sweep_of_which_one_run_is_requeued(
    cluster: Cluster, options, undisturbed: Run, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            sys.executable, REPOSITORY / "slurm" / "submit.py", "k400", *map(str, options), *SHORT,
            "--nodes", "1", "--gpus-per-node", "1", "--out", tmp_path, "--sweep", "seed", "0", "1",
        ],
        env=cluster.environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = re.findall(r"job (\d+_\d):", done.stdout)
    logs = [Path(path) for path in re.findall(r"tail -F (\S+)", done.stdout)]
    # As soon as there is a task: the signal may find it while it still imports torch.
    cluster.until(lambda: f"{second}.1" in cluster.run("squeue", "-h", "-s", "-o", "%i"), second)
    cluster.run("scancel", "--signal=USR1", second)
    assert cluster.wait(first)["Restarts"] == "0"
    assert cluster.wait(second)["Restarts"] == "1"
    Run(tmp_path / "seed=0").assert_same_training(undisturbed)
    other = [record["ids"] for record in Run(tmp_path / "seed=1").records]
    assert len(other) == 36
    assert other != [record["ids"] for record in undisturbed.records[:36]]
    assert [log.read_text().count("(dsanet-k400) on") for log in logs] == [1, 2]
