"""The versions of torch that are required, installed and tested fit together."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from dsanet.engine.environment import torch_faults

ROOT = Path(__file__).resolve().parents[1]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def required() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The lowest version of torch allowed, and the lowest one that is not."""
    found = re.search(r'"torch>=([\d.]+),<([\d.]+)"', text("pyproject.toml"))
    assert found
    return numbers(found[1]), numbers(found[2])


def test_the_newest_torch_allowed_is_the_one_that_is_installed() -> None:
    floor, ceiling = required()
    found = re.search(r"^torch==([\d.]+)$", text("constraints.txt"), re.MULTILINE)
    assert found
    installed = numbers(found[1])
    assert floor <= installed < ceiling
    assert ceiling == (installed[0], installed[1] + 1)


def test_the_oldest_torch_allowed_is_tested_every_week() -> None:
    jobs = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]
    oldest = jobs["floor"]["env"]["TORCH"]
    assert numbers(oldest)[:2] == required()[0]
    assert "TORCH" in jobs["floor"]["steps"][-1]["run"]
    assert "${TORCH:-" in text("quickstart")


def test_what_is_outside_the_bounds_for_a_fault_is_named() -> None:
    for version in ("2.9.1", "2.14.0"):
        floor, ceiling = required()
        assert not floor <= numbers(version) < ceiling
        assert torch_faults(version)
