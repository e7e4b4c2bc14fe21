#!/usr/bin/env python3
"""Try which readers of other projects open the tars of a split, as docs/format.md says.

python tools/check_readers.py SHARDS/train

Only packages that are installed are tried. The split is copied to a temporary folder first, since
energon writes into it.

exit codes: 0 every installed one opens it, 1 one does not, 2 wrong usage
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import av

# The readers may be installed in an environment without this project.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dsanet.terminal import print_line

ENERGON = """
import sys
from megatron.energon import (Cooker, DefaultTaskEncoder, WorkerConfig, basic_sample_keys,
                              get_loader, get_val_dataset, stateless)
@stateless
def cook(sample):
    return {**basic_sample_keys(sample), "mp4": sample["mp4"], "cls": sample["cls"]}
class Encoder(DefaultTaskEncoder):
    decoder = None
    cookers = [Cooker(cook)]
workers = WorkerConfig(rank=0, world_size=1, num_workers=0)
data = get_val_dataset(
    sys.argv[1], split_part="train", worker_config=workers, batch_size=None, task_encoder=Encoder())
print(*(len(sample["mp4"]) for sample in get_loader(data)))
"""


def count_frames(data: bytes) -> int:
    with av.open(io.BytesIO(data), "r") as container:
        return sum(1 for _ in container.decode(video=0))


def read_tarfile(folder: Path) -> Iterable[bytes]:
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith(".mp4") else None
                if file is not None:
                    yield file.read()


def read_datasets(folder: Path) -> Iterable[bytes]:
    from datasets import Features, Json, List, Value, Video, load_dataset

    columns = {
        "mp4": Video(decode=False), "json": Json(), "cls": Value("int64"),
        "frames.npy": List(List(Value("uint32"))), "__key__": Value("string"),
        "__url__": Value("string"),
    }  # fmt: skip
    with tarfile.open(next(folder.glob("*.tar"))) as archive:
        if any(name.endswith(".idx.npy") for name in archive.getnames()):
            columns["idx.npy"] = List(Value("int32"))
    data = load_dataset(
        "webdataset", data_files=f"{folder}/*.tar", split="train", features=Features(columns),
        cache_dir=str(folder / "cache"),
    )  # fmt: skip
    for sample in data:
        yield sample["mp4"]["bytes"]


def read_energon(folder: Path) -> Iterable[bytes]:
    command = [str(Path(sys.executable).parent / "energon"), "prepare", str(folder)]
    command += ["--non-interactive", "--split-ratio", "1,0,0", "--sample-type", "CrudeWebdataset"]
    subprocess.run(command, check=True, capture_output=True)
    reading = [sys.executable, "-c", ENERGON, str(folder)]
    done = subprocess.run(reading, check=True, capture_output=True, text=True)
    sizes = sorted(int(size) for size in done.stdout.splitlines()[-1].split())
    videos = sorted(read_tarfile(folder), key=len)
    if sizes != [len(video) for video in videos]:
        raise ValueError("energon gives other videos")
    return videos


def read_litdata(folder: Path) -> Iterable[bytes]:
    from litdata import iter_webdataset_tar

    for path in sorted(folder.glob("*.tar")):
        for sample in iter_webdataset_tar(str(path)):
            if "mp4" in sample:  # the record of the tar has none
                yield sample["mp4"]


READERS: dict[str, tuple[str, Callable[[Path], Iterable[bytes]]]] = {
    "tarfile and PyAV": ("tarfile", read_tarfile),
    "HuggingFace datasets": ("datasets", read_datasets),
    "megatron-energon": ("megatron", read_energon),
    "litdata": ("litdata", read_litdata),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("split", type=Path, help="the folder of a split")
    split = parser.parse_args().split
    if not any(split.glob("*.tar")):
        parser.error(f"{split} contains no tar")
    failed = 0
    for name, (package, read) in READERS.items():
        if importlib.util.find_spec(package) is None:
            print_line(f"{name}: not installed")
            continue
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copytree(split, Path(folder) / "split"))
            try:
                frames = [count_frames(video) for video in read(copy)]
                print_line(f"{name}: {len(frames)} videos, {sum(frames)} frames")
            except Exception as error:  # of any library
                failed += 1
                print_line(f"{name}: failed: {error!r}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
