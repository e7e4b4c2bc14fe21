"""Real batches before the first step: what fails then, what gives way, and what stays the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsanet.engine import loader_check
from dsanet.engine.errors import EngineError
from dsanet.engine.loader_check import GIB, GpuMemory, check_loaders, describe_memory
from pipelines import LoaderConfig, LoaderError
from pipelines.decode.gpu_libraries import missing_library
from pipelines.decode.graph import GraphSpec

OLD_DRIVER = "CUDA driver version is insufficient for CUDA runtime version"


class World:
    """Rank 0 of as many processes as there are texts of the others."""

    rank = 0

    def __init__(self, *others: str) -> None:
        self.others = others

    def gather_text(self, text: str) -> list[str]:
        return [text, *self.others]


class FakeTraining:
    """A run on a GPU whose training loader gives `batch`, or raises it."""

    def __init__(self, config: LoaderConfig, batch: Callable[[LoaderConfig], Any]) -> None:
        self.config, self.batch = SimpleNamespace(loader=config), batch
        self.world, self.validator, self.lines = World(), None, []
        self.console = SimpleNamespace(print=self.lines.append)

    @property
    def loader(self) -> SimpleNamespace:
        on_gpu = self.config.loader.decode_on != "cpu"
        return SimpleNamespace(spec=GraphSpec("jpeg", 1, 8, device_id=0 if on_gpu else None))

    def first_batch(self) -> Any:
        return self.batch(self.config.loader)

    def replace_loaders(self, settings: LoaderConfig) -> None:
        self.config.loader = settings


def fails_on_the_gpu(config: LoaderConfig) -> None:
    if config.decode_on != "cpu":
        raise LoaderError(OLD_DRIVER)


def test_a_gpu_that_cannot_decode_gives_way_to_the_cpu() -> None:
    training = FakeTraining(LoaderConfig(), fails_on_the_gpu)
    check_loaders(training)  # type: ignore[arg-type]
    assert training.config.loader == LoaderConfig(decode_on="cpu")
    [line] = training.lines
    assert line.startswith("WARNING")
    assert OLD_DRIVER in line


def test_a_gpu_asked_for_by_name_is_an_error() -> None:
    training = FakeTraining(LoaderConfig(decode_on="gpu"), fails_on_the_gpu)
    with pytest.raises(LoaderError, match=OLD_DRIVER):
        check_loaders(training)  # type: ignore[arg-type]


def test_decoding_that_silently_runs_on_the_cpu_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = tmp_path / "maps"
    maps.write_text("", encoding="utf-8")
    monkeypatch.setattr(loader_check, "missing_library", lambda spec: missing_library(spec, maps))
    training = FakeTraining(LoaderConfig(decode_on="gpu"), lambda config: None)
    with pytest.raises(LoaderError, match="libnvjpeg is not loaded"):
        check_loaders(training)  # type: ignore[arg-type]


def test_all_processes_follow_the_one_whose_gpu_fails() -> None:
    training = FakeTraining(LoaderConfig(decode_on="cpu"), lambda config: None)
    training.world = World("", "out of memory")
    with pytest.raises(EngineError, match="rank 2: out of memory"):
        check_loaders(training)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mapped", "missing"),
    [
        ("/usr/lib/libnvjpeg_ext.so.0.9.0", True),
        ("/usr/lib/libnvjpeg2k.so.0", True),
        ("/venv/nvidia/cu13/lib/libnvjpeg.so.13.2.0", False),
    ],
)
def test_the_library_of_the_gpus_decoder(mapped: str, missing: bool, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text(f"7f00-7f01 r-xp 00000000 08:01 123    {mapped}\n", encoding="utf-8")
    spec = GraphSpec("jpeg", 1, 8, device_id=0)
    assert bool(missing_library(spec, maps)) == missing
    assert missing_library(dataclasses.replace(spec, device_id=None), maps) is None
    assert "libnvcuvid" in str(missing_library(dataclasses.replace(spec, input="mp4"), maps))


def test_the_memory_by_owner_adds_up() -> None:
    before = GpuMemory(total=80 * GIB, free=56 * GIB, reserved=22 * GIB)
    after = GpuMemory(total=80 * GIB, free=52 * GIB, reserved=23 * GIB)
    line = describe_memory(before, after, network=GIB, peak=21 * GIB)
    for part in ("of 80.0 GiB", "23.0 reserved by torch", "optimiser 1.0", "activations up to 20.0",
                 "DALI 3.0", "other programs 2.0", "free 52.0"):  # fmt: skip
        assert part in line
