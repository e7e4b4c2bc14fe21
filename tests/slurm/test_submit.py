"""slurm/submit.py: what it queues, and the mistakes it finds before."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def submit(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run submit.py, from another folder than the repository."""
    command = [
        sys.executable,
        REPOSITORY / "slurm" / "submit.py",
        *map(str, arguments),
    ]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd="/", env=os.environ | environment
    )


def directives(text: str) -> dict[str, str]:
    """The #SBATCH options of a batch file."""
    lines = [line.removeprefix("#SBATCH --") for line in text.splitlines() if "#SBATCH" in line]
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def test_dry_run_shows_the_scripts_options_under_those_of_the_command_line(tmp_path: Path) -> None:
    data = ("--data", tmp_path, "--out", tmp_path / "run")
    site = ("--nodes", 4, "--gpus-per-node", "h100:4", "--partition", "gpu", "--sbatch", "mem=64G")
    done = submit("k400", *data, *site, "--sbatch", "hold", "--dry-run")
    assert done.returncode == 0, done.stderr
    written = directives(done.stdout)
    script = directives((REPOSITORY / "slurm" / "k400.sh").read_text())
    changed = {"nodes": "4", "gpus-per-node": "h100:4", "ntasks-per-node": "4", "mem": "64G"}
    unchanged = {
        key: script[key] for key in ("time", "signal", "cpus-per-task", "requeue", "exclusive")
    }
    assert written.items() >= (unchanged | changed | {"partition": "gpu", "hold": ""}).items()
    assert written["open-mode"] == "append"
    assert f"bash slurm/k400.sh --out {tmp_path}/run --data {tmp_path}" in done.stdout
    assert not (tmp_path / "run").exists(), "a dry run must write nothing"


def test_a_sweep_is_one_array_with_a_folder_for_each_combination(tmp_path: Path) -> None:
    sweep = ("--sweep", "optim.lr", "0.01", "0.02", "--sweep", "seed", 0, 1, "--parallel", 3)
    done = submit("k400", "--data", tmp_path, "--out", tmp_path / "s", *sweep, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert directives(done.stdout)["array"] == "0-3%3"
    tasks = [line for line in done.stdout.splitlines() if line.startswith("# task")]
    assert len({line.split("--out ")[1].split()[0] for line in tasks}) == len(tasks) == 4
    assert "s/optim.lr=0.02+seed=0" in tasks[2]
    assert tasks[2].endswith("--optim.lr=0.02 --seed=0")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--out", "/tmp/x", "--optim.lrr", "0.1"), ["optim.lrr", "optim.lr"]),
        (("--sweep", "seed", "1", "2"), ["sweep", "--out"]),
        (("--out", "/tmp/x", "--sweep", "seed"), ["--sweep seed", "values"]),
        (("--out", "/tmp/x", "--sweep", "seed", "1", "1"), ["share a folder"]),
        (("--out", "/tmp/x", "--seed", "many"), ["seed"]),
        (("--out", ""), ["--out must not be empty"]),
        (("--out", "/tmp/x", "--nodes", ""), ["--nodes must not be empty"]),
        (("--out", "/tmp/x", "--parallel", "0"), ["--parallel must be at least 1, got 0"]),
        (("--out", "/tmp/x", "--gpus-per-node", "h100:$(x)"), ["--gpus-per-node", "h100:8"]),
        (("--out", "/tmp/x", "--sbatch", "hold --wrap=x"), ["--sbatch must be KEY", "hold"]),
        (("--out", "/tmp/x", "--sbatch", "output=/x"), ["--sbatch output=/x", "submitit"]),
    ],
)
def test_mistakes_are_one_line_and_queue_nothing(arguments: tuple[str, ...], words) -> None:
    done = submit("k400", "--data", "/tmp", *arguments, "--dry-run")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words)


def test_evaluation_gets_the_warning_signal_as_training_does() -> None:
    done = submit("eval", "--data", "/tmp", "--checkpoint", "runs/x", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert directives(done.stdout)["signal"].startswith("USR1@")


@pytest.fixture
def sbatch(tmp_path: Path) -> dict[str, str]:
    """PATH with an sbatch that runs the head of the batch file, as far as its command."""
    programs = {
        "srun": "",
        "sbatch": f'cp "$1" {tmp_path}/queued && sed "/^# command/,\\$d" "$1" | bash >&2\n'
        "echo Submitted batch job 41",
    }
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--partition", "x\ntouch {} #"),
        ("--sbatch", "comment=x\ntouch {} #"),
        ("--sbatch", "hold\ntouch {}"),
        ("--out", "x\ntouch {} #"),
        ("--optim.x", "x\x1b[2J"),
        ("--nodes", "x\u2028y"),
        ("--out", "x\udcff"),
    ],
)
def test_control_characters_are_one_line_and_queue_nothing(
    tmp_path: Path, sbatch: dict[str, str], option: str, value: str
) -> None:
    marker = tmp_path / "marker"
    words = (option, value.format(marker))
    done = submit("k400", "--data", "/tmp", "--out", tmp_path / "run", *words, **sbatch)
    assert not marker.exists()
    assert not (tmp_path / "queued").exists()
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: each word of the command line must be")
    assert done.stderr.removesuffix("\n").isprintable()


def test_dry_run_prints_the_file_that_is_queued(tmp_path: Path, sbatch: dict[str, str]) -> None:
    marker, recorded = tmp_path / "marker", tmp_path / "recorded"
    out = tmp_path / f"it's $(touch {marker.name}) `x` ;y"
    site = ("--partition", f"$(touch {marker})", "--sbatch", "comment=a' #b", "--nodes", 2)
    words = ("k400", "--data", "/s/a b", "--out", out, *site)
    shown = submit(*words, "--dry-run", **sbatch)
    assert shown.returncode == 0, shown.stderr
    assert not (tmp_path / "queued").exists()
    assert submit(*words, **sbatch).returncode == 0
    file, _, command = shown.stdout.partition("\n# task 0: ")
    assert file.strip() == (tmp_path / "queued").read_text().strip()
    assert shlex.split(command) == [
        *("bash", "slurm/k400.sh", "--out", str(out), "--data", "/s/a b")
    ]
    # Pasted into a shell, the file's command and the task's run one program each.
    for name in ("python", "bash"):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\nprintf "<%s>" "$@" >>{recorded}; echo >>{recorded}\n')
        program.chmod(0o755)
    pasted = f"{file.replace(sys.executable, 'python')}\n{command}"
    subprocess.run(["/bin/sh"], input=pasted, text=True, cwd=tmp_path, env=sbatch, check=True)
    assert not marker.exists()
    assert recorded.read_text().splitlines() == [
        f"<-u><-m><submitit.core._submit><{out}/slurm>",
        f"<slurm/k400.sh><--out><{out}><--data></s/a b>",
    ]
