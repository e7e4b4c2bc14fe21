"""The frame table of format version 2 and of version 1, and the upgrade between them."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.dali_reader.pruning import read_table
from shards import ShardError, ShardSettings, Source, build_split, open_split
from shards.build.state import reindex
from shards.build.upgrade import upgrade_tar
from shards.build.verify import verify_split
from shards.encode import mp4
from shards.errors import BadVideo
from shards.format.frame_table import as_rows, to_npy
from shards.format.index import FRAME_DTYPE
from shards.format.tars import TarWriter
from tests.shards.media import jpeg, moving_squares, pack_one, write_video


def as_version_1(folder: Path) -> Path:
    """Rewrite the tars of a split as format version 1, as the first version of the project did."""
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as archive:
            members = [(m, archive.extractfile(m.name).read()) for m in archive.getmembers()]
        path.unlink()
        tar = TarWriter(path)
        for member, data in members:
            if member.name.endswith(".frames.npy"):
                table = np.load(io.BytesIO(data)).view(FRAME_DTYPE).reshape(-1)
                buffer = io.BytesIO()
                np.save(buffer, table)
                data = buffer.getvalue()
            if member.name == "__record__":
                tar.finish(json.loads(data) | {"format": 1})
            else:
                tar.add(member.name, data)
    return folder


@pytest.fixture
def version_1(copy) -> Path:
    return as_version_1(copy)


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {m.name: archive.extractfile(m.name).read() for m in archive.getmembers()}


def index_arrays(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.npy"))]


def test_a_table_is_a_plain_array_that_needs_no_structured_types(small_set):
    for name, data in members(small_set.root / "train" / "train-000000.tar").items():
        if name.endswith(".frames.npy"):
            array = np.load(io.BytesIO(data), allow_pickle=False)
            assert (array.dtype, array.shape[1]) == (np.dtype("<u4"), 3)
    assert open_split(small_set.root, "train").manifest["version"] == 2


def test_both_versions_are_the_same_rows():
    rows = np.array([(40, 7, 1 << 31), (47, 2, 3), ((1 << 32) - 1, 1, 0)], FRAME_DTYPE)
    loaded = np.load(io.BytesIO(to_npy(rows)), allow_pickle=False)
    assert loaded.tolist() == [list(row) for row in rows.tolist()]
    assert np.array_equal(as_rows(loaded), rows)
    assert np.array_equal(as_rows(rows), rows)
    assert np.array_equal(as_rows(np.asfortranarray(loaded)), rows)
    for foreign in (loaded[:, :2], loaded.astype("<i4"), loaded.ravel()):
        assert as_rows(foreign) is foreign


def test_a_set_of_version_1_is_read_indexed_and_verified(version_1, small_set):
    before = index_arrays(version_1)
    for path in version_1.iterdir():
        if path.is_file() and path.suffix != ".tar":
            path.unlink()
    tars = {path: path.read_bytes() for path in version_1.glob("*.tar")}
    assert reindex(version_1)["version"] == 1  # readers of version 1 still read it
    assert index_arrays(version_1) == before
    assert verify_split(version_1, 1) == []
    assert {path: path.read_bytes() for path in tars} == tars  # reindex never changes a tar
    split, other = open_split(version_1.parent, "train"), open_split(small_set.root, "train")
    assert np.array_equal(split.frames, other.frames)


def test_upgrade_changes_nothing_but_the_form_of_the_tables(version_1):
    reindex(version_1)
    before, index = {p.name: members(p) for p in version_1.glob("*.tar")}, index_arrays(version_1)
    assert reindex(version_1, upgrade=True)["version"] == 2
    assert index_arrays(version_1) == index  # no member has moved
    assert verify_split(version_1, 1) == []
    for name, old in before.items():
        new = members(version_1 / name)
        assert list(new) == list(old)
        for member in old:
            if member.endswith(".frames.npy"):
                array = np.load(io.BytesIO(new[member]), allow_pickle=False)
                assert array.dtype == np.dtype("<u4")
                assert array.tolist() == [
                    list(r) for r in np.load(io.BytesIO(old[member])).tolist()
                ]
            elif member == "__record__":
                assert json.loads(new[member]) == json.loads(old[member]) | {"format": 2}
            else:
                assert new[member] == old[member]
        assert not upgrade_tar(version_1 / name)


def test_tars_of_both_versions_may_be_mixed(version_1, small_set):
    """A build that an earlier version of the project began is continued by this one."""
    videos = [Source(write_video(version_1.parent / "d.mp4", moving_squares(5)), 0, "d")]
    build_split(videos, version_1.parent, "new", ["one", "two"], ShardSettings(workers=1))
    (second,) = (version_1.parent / "new").glob("*.tar")
    for path in [*version_1.glob("*.tar"), second]:  # a split of two tars
        data, number = members(path), int(path == second)
        tar = TarWriter(version_1 / f"train-{number:06d}.tar.new")
        for name in data:
            if name != "__record__":
                tar.add(name, data[name])
        tar.finish(json.loads(data["__record__"]) | {"split": "train", "tars": 2, "number": number})
    shutil.rmtree(version_1 / ".build")
    for path in version_1.glob("*.tar.new"):
        path.rename(path.with_suffix(""))
    assert reindex(version_1)["version"] == 2
    assert verify_split(version_1, 1) == []
    assert reindex(version_1, upgrade=True)["counts"]["samples"] == 4


def test_an_upgrade_that_fails_leaves_the_tar(version_1, monkeypatch):
    (path, *_) = sorted(version_1.glob("*.tar"))
    content = path.read_bytes()
    monkeypatch.setattr(
        "shards.build.upgrade.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28))
    )
    with pytest.raises(ShardError, match="cannot upgrade"):
        upgrade_tar(path)
    assert path.read_bytes() == content
    assert not list(version_1.glob(".*.part"))


def test_a_tar_of_a_later_version_is_refused(version_1):
    (path, *_) = sorted(version_1.glob("*.tar"))
    path.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 9'))
    with pytest.raises(ShardError, match="update the project"):
        reindex(version_1)


@pytest.mark.parametrize("version", [1, 2])
def test_dali_reads_the_tables_of_both_versions(small_set, version):
    pytest.importorskip("nvidia.dali")
    from nvidia.dali import fn, pipeline_def

    rows = open_split(small_set.root, "train").frames[:12]
    buffer = io.BytesIO()
    np.save(buffer, rows)
    data = np.frombuffer(to_npy(rows) if version == 2 else buffer.getvalue(), np.uint8)

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def graph():
        table = read_table(fn.external_source(source=[[data]], cycle=True))
        return table.offsets, table.sizes, table.count

    pipeline = graph()
    pipeline.build()
    offsets, sizes, count = (np.asarray(output.at(0)) for output in pipeline.run())
    assert offsets.tolist() == rows["offset"].tolist()
    assert sizes.tolist() == rows["size"].tolist()
    assert count == 12


# ---- the mp4: tables in front, offsets of 32 bits


@pytest.mark.parametrize("codec", ["mjpeg", "h264"])
@pytest.mark.parametrize("made", ["encoded", "copied"])
def test_an_mp4_is_read_from_a_pipe(tmp_path, codec, made):
    path = write_video(tmp_path / "x.mp4", moving_squares(40, (160, 144)))
    packed = pack_one(tmp_path, path, codec=codec)
    if made == "copied":
        (tmp_path / "y.mp4").write_bytes(packed.mp4)
        packed = pack_one(tmp_path, tmp_path / "y.mp4", codec=codec, copy=True)
        assert packed.metadata["remuxed"]
    assert packed.mp4.index(b"moov") < packed.mp4.index(b"mdat")
    with av.open(Pipe(packed.mp4)) as container:
        piped = [frame.to_ndarray() for frame in container.decode(video=0)]
    with av.open(io.BytesIO(packed.mp4)) as container:
        seekable = [frame.to_ndarray() for frame in container.decode(video=0)]
    assert len(piped) == 40
    assert all(np.array_equal(a, b) for a, b in zip(piped, seekable, strict=True))


class Pipe:
    """A stream that cannot seek."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self._file.read(size)


def test_the_command_line_reads_a_sample_from_a_pipe(small_set):
    if not shutil.which("ffmpeg"):
        pytest.skip("no ffmpeg command")
    data = members(small_set.root / "train" / "train-000000.tar")["a.mp4"]
    command = ["ffmpeg", "-v", "error", "-i", "-", "-f", "framecrc", "-"]
    done = subprocess.run(command, input=data, capture_output=True, check=True)
    assert done.stderr == b""
    assert len([line for line in done.stdout.splitlines() if not line.startswith(b"#")]) == 12


def test_an_mp4_beyond_32_bit_offsets_is_refused(tmp_path, monkeypatch):
    path = write_video(tmp_path / "x.mp4", moving_squares(20))
    size = len(pack_one(tmp_path, path).mp4)
    monkeypatch.setattr(mp4, "MAX_MP4", size // 2)
    with pytest.raises(BadVideo, match="segments") as caught:
        pack_one(tmp_path, path)
    assert caught.value.kind == "too_large"
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(moving_squares(20)):
        (folder / f"{number:05d}.jpg").write_bytes(jpeg(frame))
    with pytest.raises(BadVideo, match="segments"):
        pack_one(tmp_path, folder)
