"""Values of the command line and of the environment never become commands, words or mounts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.fakes import REPOSITORY, after, steps

Run = Callable[..., subprocess.CompletedProcess[str]]
ARRAY = {f"SLURM_ARRAY_TASK_{key}": "0" for key in ("ID", "MIN", "COUNT")}
NUMBERS = (
    *("SLURM_JOB_ID", "SLURM_NNODES", "SLURM_CPUS_PER_TASK", "SLURM_NTASKS_PER_NODE"),
    *("SLURM_GPUS_PER_NODE", "SLURM_RESTART_COUNT", "SLURM_ARRAY_JOB_ID"),
    *("MAX_RESTARTS", "MASTER_PORT"),
)
CONTROL = ("a\nb", "a\x1b[31mb", "a\x9b31mb", "a\tb", "a\x7f")


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def nodes(tmp_path: Path, batch: Run) -> Run:
    """`batch` with an srun that also runs the check of the nodes, which show 8 GPUs."""
    check = 'while [[ $1 != bash ]]; do shift; done; exec "$@"'
    write_program(tmp_path / "bin" / "srun", f'echo STEP; case "$*" in *"bash -c"*) {check};; esac')
    write_program(tmp_path / "bin" / "nvidia-smi", "printf 'GPU %s\\n' 0 1 2 3 4 5 6 7")
    return batch


def assert_refused(done: subprocess.CompletedProcess[str], *words: str, code: int = 2) -> None:
    """The script ended before any step, with one line of printable text."""
    assert done.returncode == code, done.stderr
    assert "STEP" not in done.stdout
    assert done.stderr.startswith("error: ")
    assert done.stderr.removesuffix("\n").isprintable()
    assert all(word in done.stderr for word in words)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_in_the_environment_run_no_command(nodes: Run, tmp_path: Path, name: str) -> None:
    marker, run = tmp_path / "marker", tmp_path / "run"
    # PATH is set, so that `set -u` does not end the script before the command runs.
    attack = {"SLURM_NTASKS_PER_NODE": "", name: f"PATH[$(touch {marker})]"}
    if name == "SLURM_NTASKS_PER_NODE":
        attack["SLURM_GPUS_PER_NODE"] = ""
    done = nodes("k400", "--data", "/tmp", "--out", str(run), **attack)
    assert not marker.exists()
    assert_refused(done, name, "must be a whole number")


@pytest.mark.parametrize("name", ARRAY)
def test_numbers_of_an_array_run_no_command(nodes: Run, tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    done = nodes("shard", "--out", "/s", **(ARRAY | {name: f"PATH[$(touch {marker})]"}))
    assert not marker.exists()
    assert_refused(done, name, "must be a whole number")


@pytest.mark.parametrize("value", ["PATH[$(touch {})]", "-1", "08", "1e3", "9" * 30, "3 4"])
def test_the_limit_of_requeues_is_a_plain_number(nodes: Run, tmp_path: Path, value: str) -> None:
    marker, run = tmp_path / "marker", tmp_path / "runs" / "a"
    limit = ("--runtime.max_requeues", value.format(marker))
    done = nodes("k400", "--data", "/tmp", "--out", str(run), *limit, RC="138")
    assert not marker.exists()
    assert not run.parent.exists()
    assert_refused(done, "runtime.max_requeues must be a whole number")


def test_a_number_adds_no_word_to_srun(batch: Run) -> None:
    done = batch("k400", "--data", "/tmp", SLURM_CPUS_PER_TASK="1 --container-mounts=/:/host")
    assert_refused(done, "SLURM_CPUS_PER_TASK")


def test_words_of_srun_args_name_no_files(batch: Run) -> None:
    done = batch("k400", "--data", "/tmp", SRUN_ARGS=" -v\n --comment /*")
    assert done.returncode == 0, done.stderr
    words = steps(done.stdout)[1]
    assert words[4:7] == ["-v", "--comment", "/*"]


@pytest.mark.parametrize("value", CONTROL)
@pytest.mark.parametrize("name", ["SLURM_JOB_NAME", "CONTAINER", "CONTAINER_MOUNTS", "SCRATCH"])
def test_control_characters_in_the_environment_are_refused(
    batch: Run, name: str, value: str
) -> None:
    done = batch("k400", "--data", "/tmp", **{name: value})
    assert_refused(done, name, "control characters")
    assert done.stdout == ""


@pytest.mark.parametrize("value", CONTROL)
def test_control_characters_on_the_command_line_are_refused(batch: Run, value: str) -> None:
    for name, options in (
        ("k400", ("--data", value)),
        ("eval", ("--data", "/tmp", f"--checkpoint={value}")),
        ("shard", ("--videos", value, "--out", "/s")),
    ):
        assert_refused(batch(name, *options, **ARRAY), "command line", "control characters")


def test_text_beyond_ascii_is_not_a_control_character(batch: Run, tmp_path: Path) -> None:
    data = tmp_path / "vidéos 動画"
    done = batch("k400", "--data", str(data))
    assert done.returncode == 0, done.stderr
    assert after(steps(done.stdout)[1], "--data") == str(data)


@pytest.mark.parametrize("image", ["image.sqsh", "image.sif"])
@pytest.mark.parametrize("data", ["/s/a,/etc", "/s/a:/etc/k400", "/s,/etc:/x/k400", "/s\\/a/b"])
def test_a_folder_that_would_be_two_mounts_is_refused(batch: Run, data: str, image: str) -> None:
    done = batch("k400", "--data", data, CONTAINER=image)
    assert_refused(done, "no comma, colon or backslash", "rename or move")


def test_a_comma_below_the_mounted_folder_is_allowed(batch: Run) -> None:
    done = batch("k400", "--data", "/s/a,b", CONTAINER="image.sqsh", SCRATCH="/local/x")
    assert done.returncode == 0, done.stderr
    mounts = next(w for w in steps(done.stdout)[1] if w.startswith("--container-mounts="))
    assert "/s:/s" in mounts.split("=")[1].split(",")
    assert "a,b" not in mounts


def test_the_name_of_a_job_leads_to_no_other_folder(batch: Run) -> None:
    done = batch("k400", "--data", "/tmp", SLURM_JOB_NAME="../../x")
    assert after(steps(done.stdout)[1], "--out") == "runs/..-..-x-41"


@pytest.fixture
def chain(tmp_path: Path) -> Run:
    """slurm/chain.sh with an sbatch that prints JOB and records its words."""
    (tmp_path / "bin").mkdir()
    record = f'printf "<%s>" STEP "$@" >>{tmp_path}/calls; echo >>{tmp_path}/calls; echo "$JOB"'
    write_program(tmp_path / "bin" / "sbatch", record)

    def run(*words: str, job: str = "41;c", **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{tmp_path}/bin:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", REPOSITORY / "slurm" / "chain.sh", *words],
            env={"PATH": path, "JOB": job} | environment,
            capture_output=True,
            text=True,
            timeout=20,
        )

    return run


def test_the_chain_refuses_newlines_in_options_of_sbatch(chain: Run, tmp_path: Path) -> None:
    words = ("slurm/k400.sh", "--data", "/s", "--out", "/r")
    assert_refused(chain("--comment=a\nb", *words), "command line", "control characters")
    assert_refused(chain(*words, "--seed", "a\nb"), "command line", "control characters")
    assert_refused(chain(*words, EVAL_SBATCH="--comment=a\x1bb"), "EVAL_SBATCH")
    assert not (tmp_path / "calls").exists()


def test_the_chain_queues_words_as_they_are(chain: Run, tmp_path: Path) -> None:
    words = ("slurm/k400.sh", "--data", "/s $(x),y", "--out", "/r")
    done = chain("-p", "gpu", *words, EVAL_SBATCH="--comment /*", EVAL_ARGS="--clips 2 --x /*")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "training is job 41, evaluation job 41: squeue -j 41,41\n"
    train, evaluation = steps((tmp_path / "calls").read_text())
    assert train == ["STEP", "--parsable", "-p", "gpu", *words]
    assert evaluation[2:6] == ["-p", "gpu", "--comment", "/*"]
    assert "--dependency=afterok:41" in evaluation
    assert after(evaluation, "--data") == "/s $(x),y"
    assert evaluation[-4:] == ["--clips", "2", "--x", "/*"]


@pytest.mark.parametrize("job", ["", "41,afterany:7"])
def test_the_chain_depends_on_one_job(chain: Run, tmp_path: Path, job: str) -> None:
    """Nothing else that sbatch prints becomes part of the evaluation's --dependency."""
    done = chain("slurm/k400.sh", "--data", "/s", "--out", "/r", job=job)
    assert_refused(done, "no job id", code=1)
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "words", [("up", "/tmp/x;touch", "3"), ("up", "/tmp/x", "PATH[$(touch {})]"), ("up", "/a b")]
)
def test_the_test_cluster_takes_plain_folders_and_numbers(tmp_path: Path, words) -> None:
    marker = tmp_path / "marker"
    for name in ("mknod", "munged", "ip", "slurmctld", "mkdir"):  # no cluster starts
        write_program(tmp_path / name, "exit 9")
    done = subprocess.run(
        [REPOSITORY / "tests" / "slurm" / "cluster.sh", *(w.format(marker) for w in words)],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 2, done.stderr
    assert not marker.exists()
    assert done.stderr.count("\n") == 1
