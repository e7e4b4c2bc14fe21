"""The batch scripts, run as Slurm would run them, with a fake srun and a fake scontrol."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# srun prints its arguments, one step a line, and a step of train.py exits with code RC. scontrol
# writes the jobs that it is asked to requeue to a file.
SRUN = """#!/bin/sh
echo "STEP $(printf "<%s>" "$@")" | tr "\\n" " "; echo
case "$*" in *" train.py "*) echo "MASTER $MASTER_ADDR:${MASTER_PORT:-}" >&2; exit ${RC:-0};; esac
"""
SCONTROL = '#!/bin/sh\n[ "$1" = show ] && echo n7 || echo "$2" >>"$TMPDIR/requeued"\n'


@pytest.fixture
def batch(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a batch script as Slurm would, with fakes of srun and scontrol."""
    bin_folder, spool = tmp_path / "bin", tmp_path / "spool"
    for folder in (bin_folder, spool, tmp_path / "shards"):
        folder.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "sleep": "#!/bin/sh\n"}.items():
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)

    def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        shutil.copy(REPOSITORY / "slurm" / f"{name}.sh", spool / "slurm_script")
        slurm = {
            "SLURM_JOB_ID": "41",
            "SLURM_JOB_NAME": f"dsanet-{name}",
            "SLURM_JOB_NODELIST": "n[7-8]",
            "SLURM_NNODES": "2",
            "SLURM_NTASKS_PER_NODE": "8",
            "SLURM_GPUS_PER_NODE": "h100:8",
            "SLURM_CPUS_PER_TASK": "12",
            "SLURM_SUBMIT_DIR": str(REPOSITORY),
            "PYTHON": sys.executable,
        }
        path = f"{bin_folder}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", spool / "slurm_script", *arguments],
            env={"PATH": path, "TMPDIR": str(tmp_path)} | slurm | environment,
            cwd=spool,
            capture_output=True,
            text=True,
            timeout=20,
        )

    return run


def steps(output: str) -> list[list[str]]:
    """The arguments of each srun."""
    return [re.findall(r"<([^>]*)>", line) for line in output.splitlines() if "STEP" in line]


def after(words: list[str], name: str) -> str:
    """The last value of an option in a list of arguments."""
    return [b for a, b in itertools.pairwise(words) if a == name][-1]
