"""A manifest that names tars elsewhere: nothing is written outside of the scratch folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from pipelines import LoaderConfig, LoaderError, open_data
from pipelines.read import scratch as scratch_module
from pipelines.read import staging
from shards import ShardError, open_split


@pytest.fixture
def hostile(split, tmp_path: Path) -> Path:
    """A set whose first tar is named like a file two folders above, where its content lies too."""
    root = tmp_path / "a" / "b" / "set"
    shutil.copytree(split.root, root)
    path = root / "train" / "manifest.json"
    manifest = json.loads(path.read_text())
    (root / "train" / "evil.idx").touch()
    payload = b"run me"
    (root.parent / "evil.tar").write_bytes(payload)
    digest = hashlib.sha256(payload).hexdigest()
    changed = {"name": "../../evil.tar", "size": len(payload), "sha256": digest}
    manifest["tars"][0].update(changed)
    path.write_text(json.dumps(manifest))
    return root


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.name == "evil.tar"}


def test_nothing_of_a_remote_set_is_written_outside_of_scratch(hostile, tmp_path, monkeypatch):
    pytest.importorskip("fsspec")
    monkeypatch.setattr(scratch_module, "MARGIN", 1 << 20)
    before, scratch = files(tmp_path), tmp_path / "deep" / "scratch"
    with pytest.raises(LoaderError, match=r"tars\[0\]\.name must be a plain file name"):
        open_data(f"file://{hostile}", "train", LoaderConfig(scratch=scratch))
    assert files(tmp_path) == before


def test_nothing_of_a_local_set_is_staged_outside_of_scratch(hostile, tmp_path, monkeypatch):
    monkeypatch.setattr(scratch_module, "MARGIN", 1 << 20)
    before, scratch = files(tmp_path), tmp_path / "deep" / "scratch"
    with pytest.raises(ShardError, match=r"tars\[0\]\.name must be a plain file name"):
        staging.stage(open_split(hostile, "train"), LoaderConfig(scratch=scratch, stage="all"))
    assert files(tmp_path) == before
