"""How a network is executed: precision, compilation, and gradients across processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import sysconfig
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dsanet.engine.config import RuntimeConfig
from dsanet.engine.errors import UsageError
from dsanet.engine.launch.distributed import World

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_precision(wanted: str, device: torch.device, *, training: bool = False) -> str:
    """The precision of forward passes; `auto` is bf16 on a GPU that has it, fp16 on an older one,
    fp32 on a CPU.

    Raises:
        UsageError: for fp16 on a CPU, and for training in bf16 there: with oneDNN 3.12 (torch 2.13)
            the bf16 weight gradient of a convolution with 3 taps over a depth of 2 is wrong on CPUs
            with AVX-512, and often finite; see tests/dsanet/test_bf16_on_cpu.py.
    """
    if device.type == "cpu" and (wanted == "fp16" or (wanted == "bf16" and training)):
        raise UsageError(f"precision {wanted} needs a GPU: take fp32 on a CPU")
    if wanted != "auto":
        return wanted
    if device.type == "cpu":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Context of a forward pass."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def build_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaler; outside fp16 it keeps the scale 1 and serves to skip, without a
    synchronisation, the update of a step whose gradient is not finite."""
    if precision == "fp16":
        return torch.amp.GradScaler(device.type)
    return torch.amp.GradScaler(device.type, init_scale=1.0, growth_interval=2**31 - 1)


def missing_compiler(device: torch.device) -> str | None:
    """What torch.compile would need here and does not find: a compiler, or Python's headers."""
    names = ("gcc", "cc", "clang") if device.type == "cuda" else ("g++", "c++", "clang++")
    chosen = os.environ.get("CC" if device.type == "cuda" else "CXX")
    wanted = (chosen,) if chosen else names
    if not any(shutil.which(name) for name in wanted):
        return wanted[0]
    header = Path(sysconfig.get_path("include"), "Python.h")
    return None if header.is_file() else "Python.h (python3-dev)"


def compiled(
    model: nn.Module, wanted: bool | None, device: torch.device, say: Callable[[str], None]
) -> nn.Module:
    """The network as one compiled graph, or itself where that is not wanted or not possible."""
    if not (device.type == "cuda" if wanted is None else wanted):
        return model
    if compiler := missing_compiler(device):
        say(
            f"WARNING: no {compiler} on this machine, so the network runs UNCOMPILED and slower; "
            "install what it needs (apt-get install g++ python3-dev), or say --compile false"
        )
        return model
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dsanet" / "inductor"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    say(
        "compiling the network: the first step takes up to a few minutes the first time "
        f"(kept in {os.environ['TORCHINDUCTOR_CACHE_DIR']})"
    )
    return torch.compile(model, fullgraph=True, dynamic=False)  # type: ignore[return-value]


def configure(config: RuntimeConfig, device: torch.device) -> None:
    """Process-wide switches of torch."""
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = not config.deterministic
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True


def synchronised(model: nn.Module, world: World, compile_wanted: bool | None) -> nn.Module:
    """The network with BatchNorm over all processes.

    Raises:
        UsageError: without GPUs, or together with torch.compile, whose graph it would break.
    """
    if world.device.type != "cuda":
        raise UsageError("--runtime.sync_batchnorm needs GPUs")
    if compile_wanted is not False:
        raise UsageError("--runtime.sync_batchnorm breaks the compiled graph: add --compile false")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def distributed(network: nn.Module, world: World, config: RuntimeConfig) -> nn.Module:
    """Average gradients over processes after each backward pass.

    BatchNorm's buffers stay each process's own; they are averaged where they are used.

    Raises:
        UsageError: for a hook in bf16 without GPUs, whose collectives alone know it.
    """
    on_gpu = world.device.type == "cuda"
    if config.gradient_hook == "bf16" and not on_gpu:
        raise UsageError("--runtime.gradient_hook bf16 needs GPUs: leave it at auto")
    if world.size == 1:
        return network
    with warnings.catch_warnings():
        # torch 2.13 has a new name for broadcast_buffers, which older ones do not know.
        warnings.simplefilter("ignore", FutureWarning)
        wrapped = DistributedDataParallel(
            network,
            device_ids=[world.device] if on_gpu else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            bucket_cap_mb=config.bucket_mb,
        )
    if config.gradient_hook == "bf16" or (config.gradient_hook == "auto" and on_gpu):
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        wrapped.register_comm_hook(None, default_hooks.bf16_compress_hook)
    return wrapped
