"""Finds a file of weights: a path, a folder as the Hugging Face hub has it, or a name of timm."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dsanet.errors import ModelError

IN_FOLDER = ("model.safetensors", "pytorch_model.bin")
TIMM = re.compile(r"(?:timm/)?(resnet(?:18|50)(?:\.\w+)?)")


def find_weights(path: Path) -> Path:
    """The file that a path means; the path itself unless it is a folder or a name of timm.

    Raises:
        ModelError: for a folder without weights, or a name of timm that was not downloaded.
    """
    if path.is_dir():
        for file in (path / name for name in IN_FOLDER):
            if file.is_file():
                return file
        raise ModelError(
            f"{path}: is neither a run folder nor one with {' or '.join(IN_FOLDER)}; give a file"
        )
    name = TIMM.fullmatch(str(path))
    if name is None or path.exists():
        return path
    downloads = _hub_cache().glob(f"models--timm--{name[1]}/snapshots/*/{IN_FOLDER[0]}")
    newest = max(downloads, key=lambda file: file.stat().st_mtime, default=None)
    if newest is None:
        raise ModelError(
            f"{path}: no such weights file, and no download of timm's {name[1]}; where there is a "
            f"network, run: hf download timm/{name[1]}"
        )
    return newest


def _hub_cache() -> Path:
    """The folder to which huggingface_hub downloads."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
