"""The parts of the check in this process, at toy sizes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from benches.report import Report
from gpu.check import read
from gpu.job import TOY, Job
from gpu.part import run_part


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the parts share: videos and shards."""
    return tmp_path_factory.mktemp("gpu-check")


@pytest.fixture
def job(scratch: Path) -> Job:
    """A job on the CPU whose rows are kept in memory."""
    return Job(Report("test"), scratch, torch.device("cpu"), TOY, deadline=float("inf"))


@pytest.fixture
def part_rows(scratch: Path, tmp_path: Path) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Run a part, and return the rows of its JSON file."""
    affinity, threads = os.sched_getaffinity(0), torch.get_num_threads()

    def run(name: str) -> list[dict[str, Any]]:
        assert run_part(name, tmp_path, scratch, seconds=600) == 0
        return read(tmp_path / f"{name}.json")["rows"]

    yield run
    os.sched_setaffinity(0, affinity)
    torch.set_num_threads(threads)
