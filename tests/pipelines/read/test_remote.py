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
from pipelines.read import scratch as st
from tests.pipelines.loaders import batches, same, train


@pytest.fixture(autouse=True)
def small_margin(monkeypatch):
    """Test machines may have little free space."""
    monkeypatch.setattr(st, "MARGIN", 1 << 20)


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without logging."""

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def test_a_set_behind_http(split, tmp_path, capfd):
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(split.root)))
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
    again = open_data(url, "train", config)  # the server is gone, but the set was fetched
    assert len(again) == len(split)
    assert "cannot check for changes" in capfd.readouterr().err


def test_a_set_in_an_s3_bucket(split, tmp_path, capfd, monkeypatch):
    """Against a server of moto: pip install "moto[server]" s3fs (not in the dev extra)."""
    fsspec = pytest.importorskip("fsspec")
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs")
    moto = pytest.importorskip("moto.server", reason="needs moto[server]")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    config = LoaderConfig(threads=1, scratch=tmp_path)
    try:
        bucket = fsspec.filesystem("s3")
        bucket.mkdir("videos")
        bucket.put(str(split.root / "train"), "videos/set/train", recursive=True)
        remote = open_data("s3://videos/set", "train", config)
        for address in ("s3://videos/other", "s3://nowhere/set"):
            with pytest.raises(LoaderError, match="no such file"):
                open_data(address, "train", config)
    finally:
        server.stop()
    assert same(batches(train(remote)), batches(train(split)))
    assert len(open_data("s3://videos/set", "train", config)) == len(split)
    assert "cannot check for changes" in capfd.readouterr().err
    with pytest.raises(LoaderError, match="cannot be fetched"):
        open_data("s3://videos/third", "train", config)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (ImportError("Install s3fs to access S3"), r"Install s3fs.*pip install"),
        (ValueError("Protocol not known: nosuch"), "Protocol not known"),
        (PermissionError(13, "Access Denied"), r"Access Denied.*credentials"),
        (TimeoutError(), "TimeoutError"),
        (RuntimeError("an error that is not an OSError"), r"cannot be fetched .RuntimeError"),
    ],
)
def test_an_error_of_a_store_becomes_one_line(split, tmp_path, monkeypatch, fault, message):
    fsspec = pytest.importorskip("fsspec")

    def refuse(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
    with pytest.raises(LoaderError, match=message) as caught:
        open_data("s3://bucket/set", "train", LoaderConfig(scratch=tmp_path))
    assert "s3://bucket/set/train" in str(caught.value)
    assert "\n" not in str(caught.value)


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
