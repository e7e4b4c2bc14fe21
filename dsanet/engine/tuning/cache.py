"""Results of earlier tuning: one file for each machine, GPU, shards, network and versions."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dsanet.engine.config import plain
from dsanet.engine.environment import versions
from dsanet.engine.setup import Training
from dsanet.engine.tuning.search import Settings, Trial
from pipelines import LoaderConfig, LoaderError
from pipelines.decode.decoder import usable_cores
from shards.format.files import write_atomic

NAME = "loader.json"
TUNABLE = ("decode_on", "threads", "hw_load", "prefetch", "read_threads", "resize_batch")


def key_of(training: Training) -> dict[str, Any]:
    """Everything that the best settings depend on."""
    state, world, split = training.state, training.world, training.state.split
    config = state.config  # as given, before anything was chosen
    gpu = "none"
    if world.device.type == "cuda":
        gpu = str(torch.cuda.get_device_properties(world.device))
    loader = {k: v for k, v in plain(config.loader).items() if k != "tune"}
    return {
        "machine": {"processor": _processor(), "cores": usable_cores()},
        "gpu": gpu,
        "processes": world.size,
        "shards": [str(Path(split.root).resolve()), split.name, _tars(split.manifest["tars"])],
        "network": [config.model, plain(config.network), state.precision, config.compile],
        "clips": [plain(config.sampling), plain(config.augment)],
        "batch": [state.layout.micro, state.layout.accumulation],
        "loader": loader,
        "versions": versions(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace") if info.is_file() else ""
    names = [line.partition(":")[2].strip() for line in lines.splitlines() if "model name" in line]
    return names[0] if names else "unknown"


def _tars(entries: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:16]


def cache_file(key: dict[str, Any]) -> Path:
    """The file of a key in the user's cache."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dsanet" / "loader"
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"{name}.json"


def write_result(
    key: dict[str, Any],
    trials: list[Trial],
    taken: Trial,
    folder: Path,
    report: Callable[[str], None],
) -> None:
    """Write settings and trials to the run folder and the cache; a warning where that fails."""
    content = {"key": key, "settings": taken.settings, "trials": [asdict(t) for t in trials]}
    for path in (folder / NAME, cache_file(key)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, (json.dumps(content, indent=1) + "\n").encode())
        except OSError as error:
            report(f"WARNING: {path}: the loader's settings are not kept: {error.strerror}")


def read_result(
    key: dict[str, Any], given: LoaderConfig, folder: Path, report: Callable[[str], None]
) -> tuple[Settings, Path] | None:
    """Settings that an earlier start has found for this key, and their file; None without any.

    given: the settings they are to change. A damaged file is ignored with a warning.
    """
    for path in (cache_file(key), folder / NAME):
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_bytes())
            if content["key"] == json.loads(json.dumps(key)):
                return _checked(content["settings"], given), path
        except (OSError, ValueError, KeyError, TypeError, LoaderError) as error:
            report(f"WARNING: {path}: ignored, it is damaged ({error})")
    return None


def _checked(settings: Settings, given: LoaderConfig) -> Settings:
    """Settings of the right names and types that change nothing that was given.

    Raises:
        ValueError, TypeError, LoaderError: for any others.
    """
    defaults = LoaderConfig()
    for name in settings:
        if name not in TUNABLE or getattr(given, name) != getattr(defaults, name):
            raise ValueError(f"{name} cannot be changed")
    dataclasses.replace(given, **settings)
    return dict(settings)
