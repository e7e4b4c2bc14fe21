"""Sets behind a URL."""

from __future__ import annotations

import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipelines import (
    LoaderConfig,
    LoaderError,
    open_data,
)
from pipelines import staging as st
from tests.pipelines.loaders import batches, same, train


@pytest.fixture(autouse=True)
def small_margin(monkeypatch):
    """Test machines may have little room."""
    monkeypatch.setattr(st, "MARGIN", 1 << 20)


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_a_set_behind_http(split, tmp_path, capfd):
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(split.root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    config = LoaderConfig(threads=1, scratch=tmp_path)
    try:
        remote = open_data(url, "train", config)
        with pytest.raises(LoaderError, match=r"nothing/manifest\.json"):
            open_data(url, "nothing", config)
    finally:
        server.shutdown()
        server.server_close()
    assert same(batches(train(remote)), batches(train(split)))
    again = open_data(url, "train", config)  # the server is gone; all is here
    assert len(again) == len(split)
    assert "not looked for changes" in capfd.readouterr().err


def test_a_set_behind_another_protocol(split, tmp_path):
    pytest.importorskip("fsspec")
    config = LoaderConfig(scratch=tmp_path)
    remote = open_data(f"file://{split.root}", "train", config)
    assert [p.read_bytes() for p in remote.tars] == [p.read_bytes() for p in split.tars]
    stream = LoaderConfig(threads=1, reader="webdataset")
    assert len(batches(train(remote, config=stream))) == len(split) // 4
    with pytest.raises(LoaderError, match=r"--loader\.scratch"):
        open_data(f"file://{split.root}", "train", LoaderConfig())


def test_a_remote_set_that_changes_is_fetched_again(split, split_of, tmp_path, capfd):
    pytest.importorskip("fsspec")
    config = LoaderConfig(scratch=tmp_path / "scratch")
    far = tmp_path / "far"
    shutil.copytree(split.root, far)
    first = open_data(f"file://{far}", "train", config)
    stamps = [path.stat().st_mtime_ns for path in first.tars]
    again = open_data(f"file://{far}", "train", config)
    assert [path.stat().st_mtime_ns for path in again.tars] == stamps
    assert "has changed" not in capfd.readouterr().err
    other = split_of("mjpeg")
    shutil.rmtree(far)
    shutil.copytree(other.root, far)
    changed = open_data(f"file://{far}", "train", config)
    assert "has changed" in capfd.readouterr().err
    assert len(changed) == len(other) != len(split)
    assert [p.read_bytes() for p in changed.tars] == [p.read_bytes() for p in other.tars]
    assert sorted(changed.tars[0].parent.glob("*.tar")) == changed.tars
