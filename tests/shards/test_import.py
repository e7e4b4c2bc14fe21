"""Reading a shard set loads nothing of what writes one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import shards

ROOT = Path(__file__).resolve().parents[2]
WRITER = ("av", "shards.build", "shards.encode")
# What the pool of worker processes needs. The loaders' own libraries import some of these.
POOL = ("subprocess", "selectors", "multiprocessing", "concurrent.futures")


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh Python has after `statement`."""
    command = [sys.executable, "-c", f"{statement}\nimport sys\nprint(*sys.modules)"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import shards", WRITER + POOL),
        ("import pipelines", WRITER),
        ("import dsanet.engine.main", WRITER),
        ("import dsanet.engine.evaluation.predict", WRITER),
    ],
)
def test_a_reader_does_not_load_the_writer(statement, unwanted):
    modules = loaded_by(statement)
    assert "shards.format.index" in modules
    assert modules.isdisjoint(unwanted)


def test_the_writer_is_loaded_when_it_is_used():
    assert {"av", "shards.build.pool"} <= loaded_by("from shards import build_split")


def test_every_public_name_is_there():
    assert set(dir(shards)) == set(shards.__all__)
    assert all(hasattr(shards, name) for name in shards.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        shards.no_such_name  # noqa: B018
