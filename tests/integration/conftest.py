"""The real entry points, run as a user would, on small shards."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.scripts import TINY, launch, run_script


@pytest.fixture
def start() -> Iterator[Callable[..., list[subprocess.Popen[str]]]]:
    """Start an entry script in the background; what still runs is killed afterwards."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: object, processes: int = 1) -> list[subprocess.Popen[str]]:
        group = launch(*words, processes=processes)
        started.extend(group)
        return group

    yield begin
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration that trains ten steps in a second."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def trained(small_shards: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of an undisturbed run of `tiny`. Treat it as read-only."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    done = run_script("train.py", "--data", small_shards, "--config", tiny, "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out
