"""Copies tars to node-local scratch, so that a network disk is read once and in order.

When copying fails (no space, a failing disk), a warning is printed and the original is read.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dsanet.errors import require
from dsanet.variables import read_number
from pipelines.config import LoaderConfig
from pipelines.errors import HangError, LoaderError, LoaderUsageError
from pipelines.read.filesystems import filesystem, is_network
from pipelines.read.scratch import (
    copy_tars,
    copy_verified,
    is_complete,
    locked,
    log,
    require_space,
    scratch_folder,
)
from pipelines.read.transfer import StallFlag
from shards import Split
from shards.format.files import open_regular


def stage(split: Split, config: LoaderConfig, tars: Iterable[int] | None = None) -> Split:
    """Copy tars (numbers, None for all) to scratch; returns the split that reads the copies.

    Does nothing for loader.stage off, and for auto outside SLURM. When copying fails, a warning is
    printed and the split is returned unchanged.

    Raises:
        LoaderUsageError: for loader.stage all or lanes without a scratch folder.
        HangError: when no byte is copied for `loader.hang` seconds.
    """
    if config.stage == "off" or (config.stage == "auto" and "SLURM_JOB_ID" not in os.environ):
        return split
    scratch = scratch_folder(config)
    if scratch is None:
        must = f"name a folder on a local disk with loader.stage {config.stage}"
        require(config.stage == "auto", "loader.scratch", must, None, LoaderUsageError)
        return split
    numbers = sorted(set(range(len(split.tars)) if tars is None else tars))
    try:
        return _stage_tars(split, scratch, numbers, config)
    except HangError:
        raise
    except (OSError, LoaderError) as error:
        log(f"warning: tars are not staged, reading them from {split.root}: {error}")
        return split


def _stage_tars(split: Split, scratch: Path, numbers: list[int], config: LoaderConfig) -> Split:
    identity = hashlib.sha256(repr(split.manifest["tars"]).encode()).hexdigest()[:12]
    folder = scratch / f"dsanet-{identity}" / split.name
    entries = split.manifest["tars"]
    with locked(folder, config.hang):
        missing = [n for n in numbers if not is_complete(folder, entries[n])]
        size = sum(entries[n]["size"] for n in missing)
        require_space(folder, size, str(split.root))
        if missing:
            log(f"staging {len(missing)} tars ({size / 1e9:.2f} GB) to {folder}")
        paths = {entries[number]["name"]: split.tars[number] for number in missing}

        def copy_one(entry: dict[str, Any], flag: StallFlag) -> None:
            path = paths[entry["name"]]
            copy_verified(lambda: open_regular(path), folder / entry["name"], entry, flag)

        copy_tars(
            [entries[number] for number in missing],
            copy_one,
            config.reading_threads,
            config.hang,
            f"tars from {split.root} to {folder} (loader.hang)",
        )
    local = copy.copy(split)
    local.tars = list(split.tars)
    for number in numbers:
        local.tars[number] = folder / entries[number]["name"]
    return local


def lane_tars(split: Split, order: np.ndarray, ranks: Iterable[int], world: int) -> np.ndarray:
    """Numbers of the tars that these ranks of `world` read in this order of sample ids (N,)."""
    samples = np.concatenate([order[rank::world] for rank in ranks])
    return np.unique(split.samples["tar"][samples])


def node_ranks(rank: int) -> range:
    """The ranks on this node, from the environment of torchrun or SLURM.

    Raises:
        VariableError: when a variable is not a number.
    """
    local = read_number("LOCAL_RANK" if "LOCAL_RANK" in os.environ else "SLURM_LOCALID", 0)
    torchrun = "LOCAL_WORLD_SIZE" in os.environ
    count = read_number("LOCAL_WORLD_SIZE" if torchrun else "SLURM_NTASKS_PER_NODE", 1)
    return range(rank - local, rank - local + max(count, local + 1))


def warn_of_network(split: Split, config: LoaderConfig) -> None:
    """Print a warning if single frames will be read at random from a network file system."""
    folder = split.tars[0].parent if split.tars else split.root
    if config.order.kind != "blocked" and is_network(folder):
        log(
            f"warning: {folder} is on a network file system ({filesystem(folder)}), where random "
            "reads are slow; stage the tars (--loader.stage all --loader.scratch DIR) or read them "
            "in blocks (--loader.order.kind blocked)"
        )
