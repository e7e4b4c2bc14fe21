"""The cases of the fuzzer: what is damaged, and the command that then meets it.

A case is a function of its kind and its seed. It damages a copy of a good input in `work` and
returns the commands to run, each a callable that gives an exit code.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from dsanet import load_weights
from dsanet.engine.command_line import parse_train
from dsanet.engine.config import plain
from dsanet.engine.evaluation.trained_network import load_trained
from dsanet.engine.launch.signals import Signals
from dsanet.engine.main import eval_main, run_command, train_main
from dsanet.engine.setup import build_network
from pipelines import AugmentConfig, EvalLoader, LoaderConfig, SamplingConfig, TrainLoader
from shards import open_split
from tests.fuzz import values
from tests.integration.scripts import TINY

Command = Callable[[], int]
SPLIT = "val"
ARRAYS = ("samples", "frames", "keys", "labels", "fragments")
SAMPLING = SamplingConfig(segments=2, frames=2, stride=2)
ONE = LoaderConfig(threads=1, read_threads=2, hang=15)


def shard(*words: object) -> Command:
    """The command tools/shard.py."""
    sys.path[:0] = [] if "tools" in sys.path else ["tools"]
    import shard as tool

    def run() -> int:
        sys.argv = ["shard.py", *map(str, words)]
        return tool.main()

    return run


def read_set(root: Path, reader: str = "frames") -> Command:
    """Opens a set and loads an epoch of training and of evaluation, as train.py and eval.py do."""

    def run() -> int:
        split, config = open_split(root, SPLIT), LoaderConfig(**{**vars(ONE), "reader": reader})
        augment = AugmentConfig(size=32, short_sides=(32, 36))
        train = TrainLoader(split, SAMPLING, augment, config, seed=0, batch_size=4)
        try:
            for _ in train.epoch(0):
                pass
        finally:
            train.close()
        test = EvalLoader(split, SAMPLING, config, batch_size=4, crop_size=32, resize_short=32)
        try:
            for _ in test:
                pass
        finally:
            test.close()
        return 3 if test.missing else 0

    return lambda: run_command(run)


def train(work: Path, *words: object) -> Command:
    """The command train.py on the set in `work`, for one epoch."""
    argv = ["--data", work / "set", "--split", SPLIT, "--out", work / "out", "--epoch_limit", 1]
    more = ["--config", work / "tiny.yaml", "--validation.split", "null", *words]
    (work / "tiny.yaml").write_text(TINY, encoding="utf-8")
    return lambda: run_command(lambda: train_main(Signals(), [str(w) for w in argv + more]))


def set_commands(work: Path, rng: np.random.Generator, deep: bool) -> list[Command]:
    """What may be done with a set; deep: also train on it."""
    folder, way = work / "set", rng.random()
    if deep and way < 0.1:
        return [train(work)]
    if way < 0.35:
        return [shard("verify", folder, "--workers", 1)]
    if way < 0.6:
        return [shard("reindex", folder), read_set(folder)]
    if way < 0.65:
        return [shard("merge", folder)]
    return [read_set(folder, "webdataset" if way > 0.93 else "frames")]


def replace_by_other_file(path: Path, rng: np.random.Generator) -> None:
    """A FIFO, a folder, nothing, or a link to what never ends in the place of a file."""
    path.unlink()
    way = int(rng.integers(5))
    if way == 0:
        os.mkfifo(path)
    elif way == 1:
        path.mkdir()
    elif way == 2:
        path.symlink_to("/dev/zero")
    elif way == 3:
        path.write_bytes(b"")


def damaged_set(kind: str, work: Path, base: Path, rng: np.random.Generator) -> None:
    """A copy of the set with one file damaged."""
    folder = shutil.copytree(base / "set" / SPLIT, work / "set" / SPLIT)
    outside = str(work / "evil" / "x.tar")
    if kind == "manifest":
        path = folder / "manifest.json"
    elif kind == "arrays":
        path = folder / f"{rng.choice(ARRAYS)}.npy"
    elif kind == "frames":
        return damage_frames(folder, rng)
    else:
        path = sorted(folder.glob("*.idx" if rng.random() < 0.1 else "*.tar"))[0]
    if rng.random() < 0.05:
        replace_by_other_file(path, rng)
    elif kind == "manifest":
        path.write_bytes(values.damage_json(path.read_bytes(), rng, outside))
    elif kind == "arrays":
        path.write_bytes(values.damage_npy(path.read_bytes(), rng))
    elif path.suffix == ".idx":
        path.write_bytes(values.damage_bytes(path.read_bytes(), rng))
    else:
        values.damage_tar(path, rng, outside)


def damage_frames(folder: Path, rng: np.random.Generator) -> None:
    """Encoded frames damaged, with right checksums in the index: the decoder meets them."""
    from tests.pipelines.damage import overwrite

    split = open_split(folder.parent, SPLIT)
    sample = int(rng.integers(len(split)))

    def damage(data: bytes) -> bytes:
        return values.flip(data, rng, 0, 700 if rng.random() < 0.5 else None)

    overwrite(split, sample, damage, fix_crc=True)


def make_checkpoint(path: Path) -> None:
    """A checkpoint of a network that was not trained; enough for the commands that load weights."""
    (path.parent / "tiny.yaml").write_text(TINY, encoding="utf-8")
    words = ["--data", "x", "--out", "x", "--config", str(path.parent / "tiny.yaml")]
    config = parse_train(words)
    classes = ["left", "right", "up", "down"]
    content = {
        "format": 1, "score": None, "samples": 8, "validated": 0,
        "model": build_network(config, 4).state_dict(), "average": None, "optimizer": {},
        "scaler": {}, "precision": "fp32", "config": plain(config), "classes": classes,
        "videos": 8, "shards": {"short_side": 64, "fps": "native"}, "versions": {"torch": "2"},
        "readers": None, "data": None,
    }  # fmt: skip
    torch.save(content, path)


def damaged_checkpoint(path: Path, rng: np.random.Generator) -> None:
    """A checkpoint with bytes, members of its archive, entries or tensors changed."""
    way = rng.random()
    if way < 0.35:
        path.write_bytes(values.damage_bytes(path.read_bytes(), rng))
    elif way < 0.5:
        path.write_bytes(_damaged_archive(path.read_bytes(), rng))
    else:
        content = torch.load(path, weights_only=True)
        name = str(rng.choice(list(content["model"])))
        if way < 0.75:
            content["model"][name] = _odd_tensor(content["model"][name], rng)
        elif way < 0.8:
            content["model"][name] = values.odd_value(rng)
        elif way < 0.85:
            content["hook"] = Exploit(path.parent.parent / "evil")
        else:
            weights = content.pop("model")
            content = values.damage_tree(content, rng)
            if isinstance(content, dict):
                content["model"] = weights
        torch.save(content, path)


class Exploit:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def _odd_tensor(tensor: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    shape = tensor.shape or (1,)
    odd: tuple[Callable[[], torch.Tensor], ...] = (
        lambda: tensor.to(torch.complex64),
        lambda: tensor.reshape(-1)[:1].to_sparse(),
        lambda: torch.empty(shape, device="meta"),
        lambda: torch.full(shape, float("nan")),
        lambda: torch.zeros(()),
        lambda: torch.zeros((0, *shape)),
        lambda: torch.zeros(1).expand(10**6, 10**5),
        lambda: torch.zeros(1).expand(shape),
        lambda: torch.zeros(shape, dtype=torch.int8),
        lambda: torch.zeros((*shape, 2)),
        lambda: torch.zeros(shape, dtype=torch.bool),
        lambda: torch.quantize_per_tensor(torch.zeros(shape), 0.1, 0, torch.qint8),
    )
    return odd[int(rng.integers(len(odd)))]()


def _damaged_archive(data: bytes, rng: np.random.Generator) -> bytes:
    """The zip archive with one member damaged, removed or compressed from gigabytes of zeros."""
    source, buffer = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    names = source.namelist()
    chosen = names[int(rng.integers(len(names)))]
    if rng.random() < 0.5:  # the pickle, rather than one of many tensors
        chosen = next(name for name in names if name.endswith("data.pkl"))
    way = int(rng.integers(4))
    with zipfile.ZipFile(buffer, "w") as target:
        for name in names:
            body = source.read(name)
            if name != chosen:
                target.writestr(name, body)
            elif way == 0:
                target.writestr(name, bytes(64 << 20), zipfile.ZIP_DEFLATED)
            elif way > 1:
                target.writestr(name, values.damage_bytes(body, rng))
    return buffer.getvalue()


def _alias_bomb(levels: int) -> str:
    """A few lines of YAML that stand for 2^levels values."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, levels)]
    return "\n".join(lines)


YAMLS = (
    _alias_bomb(18), _alias_bomb(30), "[" * 5000, "model: " + "[" * 300 + "]" * 300,
    "seed: 2020-01-01\n", "seed: 2020-99-99\n", f"seed: {'9' * 5000}\n", "model: *x\n",
    "model: !!python/object/apply:os.mkdir [OUT]\n", "!!python/name:os.system\n", "? [a]\n: b\n",
    'data: "a\\nb\\e[2J\\ud800"\n', "<<: [1]\n", "\ufeffseed: 1\n", "\0", "- 1\n", "optim: 5\n",
    "optim: {lr: .nan}\n", "optim: {lr: 1e400}\n", f"batch: {{videos: {10**30}}}\n",
    "sampling: {frames: 2147483648}\n", "model: x\nmodel: y\n", "1: 2\n", "null: 1\n",
)  # fmt: skip


def damaged_config(path: Path, rng: np.random.Generator, evil: Path) -> None:
    """A file of settings with an entry or a byte changed, or one that was made to do harm."""
    way = rng.random()
    if way < 0.3:
        text = YAMLS[int(rng.integers(len(YAMLS)))].replace("OUT", str(evil))
        path.write_text(text, encoding="utf-8")
    elif way < 0.5:
        path.write_bytes(values.damage_bytes(path.read_bytes(), rng))
    else:
        content = values.damage_tree(yaml.safe_load(path.read_bytes()), rng)
        text = yaml.safe_dump(content).encode("utf-8", "surrogatepass")
        path.write_bytes(text)


def prepare(kind: str, seed: int, work: Path, base: Path, deep: bool) -> list[Command]:
    """Make the input of a case in `work`; returns the commands to run on it, in order."""
    rng = np.random.default_rng([seed, *kind.encode()])
    if kind == "checkpoint":
        path = work / "in" / "checkpoint.pt"
        path.parent.mkdir()
        shutil.copy(base / "checkpoint.pt", path)
        damaged_checkpoint(path, rng)
        return checkpoint_commands(path, work, base, rng, deep)
    if kind == "config":
        path = work / "in" / "config.yaml"
        path.parent.mkdir()
        path.write_text(TINY, encoding="utf-8")
        damaged_config(path, rng, work / "evil")
        argv = ["--data", work / "none", "--out", work / "out", "--config", path]
        return [lambda: run_command(lambda: train_main(Signals(), [str(w) for w in argv]))]
    damaged_set(kind, work, base, rng)
    return set_commands(work, rng, deep)


def checkpoint_commands(
    path: Path, work: Path, base: Path, rng: np.random.Generator, deep: bool
) -> list[Command]:
    """What may be done with a checkpoint or weights."""
    if deep and rng.random() < 0.3:
        words = ["--data", base / "set", "--split", SPLIT, "--checkpoint", path, "--clips", 1]
        argv = [str(w) for w in [*words, "--crops", 1, "--out", work / "out"]]
        return [lambda: run_command(lambda: eval_main(Signals(), argv))]
    if rng.random() < 0.5:
        return [lambda: run_command(lambda: int(load_trained(path) is None))]

    def load() -> int:
        tiny = parse_train(["--data", "x", "--out", "x", "--config", str(base / "tiny.yaml")])
        load_weights(build_network(tiny, 4), path)
        return 0

    return [lambda: run_command(load)]
