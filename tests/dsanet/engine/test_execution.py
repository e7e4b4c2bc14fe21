"""Precision, compilation, devices and gradients, by the hardware that there is."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._inductor import compile_fx

from dsanet.engine import UsageError
from dsanet.engine.config import RuntimeConfig
from dsanet.engine.execution import (
    build_scaler,
    compiled,
    configure,
    distributed,
    missing_compiler,
    pick_precision,
)
from dsanet.engine.launch.distributed import World, pick_device, use_device

CPU = torch.device("cpu")


def test_precision_follows_the_device() -> None:
    assert pick_precision("auto", CPU) == "fp32"
    assert pick_precision("bf16", CPU) == "bf16"
    with pytest.raises(UsageError, match="needs a GPU"):
        pick_precision("fp16", CPU)
    with pytest.raises(UsageError, match="needs a GPU"):
        pick_precision("bf16", CPU, training=True)


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_that_only_emulates_bf16_takes_fp16(
    native: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert pick_precision("auto", torch.device("cuda")) == expected


def test_without_a_compiler_the_network_is_not_compiled_and_a_warning_is_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CC", raising=False)
    assert missing_compiler(CPU) == "g++"
    lines: list[str] = []
    model = nn.Linear(2, 2)
    assert compiled(model, True, CPU, lines.append) is model
    assert "UNCOMPILED" in lines[0]
    assert "apt-get install g++" in lines[0]


def test_a_compiler_without_pythons_headers_is_not_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "sh")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert missing_compiler(CPU) == "Python.h (python3-dev)"
    (tmp_path / "Python.h").touch()
    assert missing_compiler(CPU) is None


@pytest.mark.parametrize("size", [1, 2])
def test_the_bf16_hook_needs_gpus(size: int) -> None:
    config = RuntimeConfig(gradient_hook="bf16")
    with pytest.raises(UsageError, match="gradient_hook bf16 needs GPUs"):
        distributed(nn.Linear(2, 2), World(size=size), config)


def test_on_a_cpu_the_network_is_compiled_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(2, 2)
    assert compiled(model, None, CPU, pytest.fail) is model
    assert compiled(model, False, CPU, pytest.fail) is model
    # The cache folder is printed before the long compilation.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/tmp/cache")
    lines: list[str] = []
    assert compiled(model, True, CPU, lines.append) is not model
    assert "/tmp/cache" in lines[0]


def test_the_scaler_skips_a_step_whose_gradient_is_not_finite() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = build_scaler("fp32", CPU)
    for factor, moves in ((1.0, True), (float("nan"), False), (float("inf"), False)):
        before = model.weight.detach().clone()
        loss = (model(torch.ones(1, 2)) * factor).sum()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert torch.equal(before, model.weight) != moves


def test_a_run_on_a_gpu_has_tf32_so_that_inductor_does_not_warn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warn = compile_fx._warn_tf32_disabled.__wrapped__  # without its cache
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    before = torch.get_float32_matmul_precision()
    with pytest.warns(UserWarning, match="set_float32_matmul_precision"):
        warn()
    try:
        configure(RuntimeConfig(), torch.device("cuda"))
        warn()  # pytest makes an error of a warning
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("visible", "local", "index"), [(8, 3, 3), (1, 3, 0), (1, 0, 0)])
def test_a_process_takes_the_gpu_of_its_local_rank_or_the_only_one(
    visible: int, local: int, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    assert pick_device("auto", local) == torch.device("cuda", index)
    assert pick_device("cpu", local) == CPU


def test_the_chosen_device_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert use_device("cuda:3") == torch.device("cuda", 3)
    assert current == [torch.device("cuda", 3)]
    assert use_device("cpu") == CPU


@pytest.mark.parametrize("wanted", ["gpu", "cuda:x", "cuda:", "cuda:4", "GPU 0"])
def test_a_device_that_does_not_exist_is_refused(
    wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for available in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
        with pytest.raises(UsageError, match=f"^device .*{wanted}"):
            pick_device(wanted, 0)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(UsageError, match="one process per GPU"):
        pick_device("auto", 4)


def test_texts_of_one_process() -> None:
    world = World()
    assert world.gather_text("här") == ["här"]
    assert world.main
