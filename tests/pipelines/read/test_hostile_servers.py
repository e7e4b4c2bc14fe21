"""Servers that are slow, silent, endless, lying, changing or gone: one line, within the limit."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipelines import LoaderConfig, LoaderError, RemoteConfig, open_data
from pipelines.read import remote as remote_module
from pipelines.read import scratch as scratch_module
from shards import Split
from tests.pipelines.servers import (
    Answer,
    Server,
    compressed,
    cut,
    endless,
    failing,
    longer,
    lying,
    redirect,
    resetting,
    send,
    serving,
    short,
    silent,
    stopping,
    trickling,
    trickling_headers,
)

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

SOON = 20.0  # seconds; all limits here are less than 2


@pytest.fixture(autouse=True)
def small_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test machines may have little free space."""
    monkeypatch.setattr(scratch_module, "MARGIN", 1 << 20)


def config(tmp_path: Path, **remote: object) -> LoaderConfig:
    limits = {"idle": 0.8, "total": 1.6, **remote}
    return LoaderConfig(
        threads=1, read_threads=2, scratch=tmp_path / "scratch", remote=RemoteConfig(**limits)
    )  # type: ignore[arg-type]


def refusal(server: Server, settings: LoaderConfig) -> str:
    """The one line with which a set is refused, soon, with nothing large or partial behind it."""
    began = time.monotonic()
    with pytest.raises(LoaderError) as caught:
        open_data(server.url, "train", settings)
    assert time.monotonic() - began < SOON
    message = str(caught.value)
    assert message.isprintable()
    assert "reindex" not in message
    assert server.url in message
    assert settings.scratch is not None
    files = [path for path in settings.scratch.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 16 << 20
    assert not [path for path in files if path.name.endswith(".part")]
    return message


IDLE = r"no answer in 0\.8 s \(loader\.remote\.idle\)"
TOTAL = r"1\.6 s \(loader\.remote\.total\)"
EVERY = ("manifest.json", "samples.npy", "000000.tar")
FAULTS: list[tuple[Answer, tuple[str, ...], str]] = [
    (silent, EVERY, IDLE),
    (stopping, EVERY[2:], IDLE),
    (trickling, EVERY[1:2], TOTAL),
    (trickling_headers, EVERY[:1], TOTAL),
    (endless, EVERY, "is longer than the"),
    (resetting, EVERY, "cannot be fetched"),
    (cut, EVERY, "cannot be fetched"),
    (compressed, EVERY, "Content-Encoding gzip"),
    (failing, EVERY, "503"),
]


@pytest.mark.parametrize(
    ("answer", "suffix", "message"),
    [(answer, suffix, text) for answer, suffixes, text in FAULTS for suffix in suffixes],
)
def test_a_fault_of_the_server_is_one_line(
    split: Split,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    suffix: str,
    message: str,
) -> None:
    monkeypatch.setattr(remote_module, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(remote_module, "ATTEMPTS", 1)
    with serving(split.root, suffix, answer) as server:
        text = refusal(server, config(tmp_path))
    assert re.search(message, text), text
    if suffix == "manifest.json":  # nothing else is fetched before it is known to be valid
        assert set(server.served) == {"manifest.json"}


@pytest.mark.parametrize("answer", [lying, longer, short])
@pytest.mark.parametrize("suffix", ["samples.npy", "000000.tar", "000000.idx"])
def test_a_wrong_file_is_removed_and_fetched_again(
    split: Split, tmp_path: Path, suffix: str, answer: Answer, capfd: pytest.CaptureFixture[str]
) -> None:
    slow = config(tmp_path, idle=20, total=20)
    with serving(split.root, suffix, answer) as server:
        server.times = 1
        if answer is lying and suffix != "000000.tar":
            answer_once = {"samples.npy": b"x", "000000.idx": b"v1.2 7\n"}[suffix]
            server.answer = lambda request, body: send(request, answer_once)
        if answer is longer and suffix != "000000.tar":
            message = refusal(server, slow)
            assert "is longer than the" in message
        fetched = open_data(server.url, "train", slow)
    assert [p.read_bytes() for p in fetched.tars] == [p.read_bytes() for p in split.tars]
    assert (fetched.samples == split.samples).all()
    if suffix == "000000.tar" or answer is not longer:
        assert "again" in capfd.readouterr().err


@pytest.mark.parametrize("suffix", ["samples.npy", "000000.tar"])
def test_a_file_that_stays_wrong_is_named_with_the_remedy(
    split: Split, tmp_path: Path, suffix: str
) -> None:
    with serving(split.root, suffix, short) as server:
        text = refusal(server, config(tmp_path, idle=20, total=20))
    assert suffix in text
    assert "where it lies" in text or "bytes" in text


def test_a_damaged_index_on_scratch_is_fetched_again(split: Split, tmp_path: Path) -> None:
    settings = config(tmp_path, idle=20, total=20)
    with serving(split.root) as server:
        fetched = open_data(server.url, "train", settings)
        (fetched.root / "train" / "frames.npy").write_bytes(b"a crash of the machine")
        (fetched.root / "train" / "samples.npy").unlink()
        again = open_data(server.url, "train", settings)
    assert (again.frames == split.frames).all()


@pytest.mark.parametrize("samples", [25, 27])
def test_a_set_that_changes_between_two_requests_is_refused(
    split: Split, tmp_path: Path, samples: int
) -> None:
    """The manifest is of one set, the index of another."""
    mixed = tmp_path / "mixed"
    shutil.copytree(split.root, mixed)
    manifest = json.loads((mixed / "train" / "manifest.json").read_text())
    manifest["counts"]["samples"] = samples
    (mixed / "train" / "manifest.json").write_text(json.dumps(manifest))
    with serving(mixed) as server:
        text = refusal(server, config(tmp_path, idle=20, total=20))
    assert "the index does not fit the manifest" in text
    assert server.served.count("samples.npy") == 2
    assert not any(name.endswith(".tar") for name in server.served)


@pytest.mark.parametrize("body", [b"<html>log in first</html>", b"{}", b"[" * 100000, b""])
def test_a_local_copy_outlives_a_server_that_sends_something_else(
    split: Split, tmp_path: Path, body: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = config(tmp_path, idle=20, total=20)
    with serving(split.root) as server:
        first = open_data(server.url, "train", settings)
        server.suffix, server.answer = "manifest.json", lambda request, _: send(request, body)
        again = open_data(server.url, "train", settings)
    assert "cannot check for changes" in capfd.readouterr().err
    assert len(again) == len(split)
    assert all(path.is_file() for path in first.tars)


def test_redirects_stay_on_the_server_unless_others_are_allowed(
    split: Split, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        other = stack.enter_context(serving(split.root))
        server = stack.enter_context(serving(split.root, ".json", redirect(lambda: other.url)))
        text = refusal(server, config(tmp_path, idle=20, total=20))
        assert f"leads to another server, {other.url}" in text
        assert not other.served
        trusting = config(tmp_path, idle=20, total=20, redirects="any")
        assert len(open_data(server.url, "train", trusting)) == len(split)
        assert other.served == ["manifest.json"]
        both = tmp_path / "both"
        shutil.copytree(split.root, both)
        shutil.copytree(split.root, both / "far")
        moved = stack.enter_context(serving(both, ".json", redirect(lambda: "/far")))
        moved.times = 1
        settings = config(tmp_path / "b", idle=20, total=20)
        assert len(open_data(moved.url, "train", settings)) == len(split)
        assert moved.served[:2] == ["manifest.json"] * 2


def test_redirects_that_never_end_are_refused(split: Split, tmp_path: Path) -> None:
    with serving(split.root, ".json", redirect(lambda: "")) as server:
        assert "cannot be fetched" in refusal(server, config(tmp_path, idle=20, total=20))


def test_a_manifest_with_absurd_counts_fetches_nothing_absurd(split: Split, tmp_path: Path) -> None:
    manifest = json.loads((split.root / "train" / "manifest.json").read_text())
    manifest["counts"] |= {"samples": 1 << 40, "frames": 1 << 40}
    limits = remote_module.index_limits(manifest)
    assert max(limits.values()) < 2 << 30


def test_nothing_listens(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(LoaderError, match="cannot be fetched") as caught:
        open_data(url, "train", config(tmp_path))
    assert str(caught.value).isprintable()
