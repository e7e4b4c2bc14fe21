"""What a run is executed with: versions of the packages, and the commit of this project."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "numpy", "nvidia-dali-cuda130", "nvidia-dali-cuda120", "webdataset", "av")

# Faults of torch on a GPU: the versions (by their first numbers), what is wrong and what to do.
TORCH_FAULTS = (
    (
        "2.9",
        "convolutions in bf16 run without cuDNN, many times slower: install torch 2.10 or newer",
    ),
    (
        "2.13",
        "some compiled graphs run up to six times slower (pytorch issue 189488): compare the step "
        "with TORCHINDUCTOR_LOOP_REINDEXING_AFTER_FUSION=0",
    ),
    (
        "2.14",
        "a compiled copy to a transposed tensor can give wrong values (pytorch issue 198280): "
        "install torch 2.13, or take --compile false",
    ),
)


def torch_faults(version: str) -> list[str]:
    """Known faults of a version of torch on a GPU, such as "2.13.0+cu130", with the remedies."""
    numbers = version.partition("+")[0].split(".")
    return [
        f"torch {version}: {text}"
        for affected, text in TORCH_FAULTS
        if numbers[:2] == affected.split(".")
    ]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that influence a result."""
    known = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            known[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    known["torch"] = str(torch.__version__)  # includes the build: +cpu, +cu130
    if torch.version.cuda:
        known["cuda"] = torch.version.cuda
        known["cudnn"] = str(torch.backends.cudnn.version())
    return known


def dali_version(versions: dict[str, str]) -> str | None:
    """Version of DALI in the result of `versions`, for CUDA 12 or 13."""
    return next((v for name, v in versions.items() if name.startswith("nvidia-dali")), None)


def git_state() -> dict[str, Any]:
    """Commit and uncommitted changes of this project's checkout; empty outside git."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {}
    return {
        "commit": commit,
        "changes": _git("diff", "HEAD", "--stat"),
        "diff": _git("diff", "HEAD"),
    }


def _git(*words: str) -> str | None:
    folder = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.rstrip()
