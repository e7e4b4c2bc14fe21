"""Execution of a network: precision, compilation, and gradients over several processes."""

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
    """Resolve `auto`: bf16 on a GPU that supports it, fp16 on an older one, fp32 on a CPU.

    Raises:
        UsageError: for fp16 on a CPU, and for training in bf16 there: with oneDNN 3.12 (torch 2.13)
            the bf16 weight gradient of a convolution with 3 taps over a depth of 2 is wrong on CPUs
            with AVX-512, and often finite; see tests/dsanet/test_bf16_on_cpu.py.
    """
    if device.type == "cpu" and (wanted == "fp16" or (wanted == "bf16" and training)):
        raise UsageError(f"precision {wanted} needs a GPU; choose fp32 on a CPU")
    if wanted != "auto":
        return wanted
    if device.type == "cpu":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Context for forward passes in this precision."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def build_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaler, which skips updates whose gradient is not finite without waiting for the GPU.

    Its scale stays 1 unless the precision is fp16.
    """
    if precision == "fp16":
        return torch.amp.GradScaler(device.type)
    return torch.amp.GradScaler(device.type, init_scale=1.0, growth_interval=2**31 - 1)


def missing_compiler(device: torch.device) -> str | None:
    """What torch.compile needs and this machine lacks: a compiler or Python's headers; or None."""
    names = ("gcc", "cc", "clang") if device.type == "cuda" else ("g++", "c++", "clang++")
    chosen = os.environ.get("CC" if device.type == "cuda" else "CXX")
    wanted = (chosen,) if chosen else names
    if not any(shutil.which(name) for name in wanted):
        return wanted[0]
    header = Path(sysconfig.get_path("include"), "Python.h")
    return None if header.is_file() else "Python.h (python3-dev)"


def compiled(
    model: nn.Module, wanted: bool | None, device: torch.device, report: Callable[[str], None]
) -> nn.Module:
    """The network compiled as one graph, or the network itself.

    wanted: `--compile`; None compiles on a GPU only.
    report: called with a line when it compiles, or cannot for lack of a compiler.
    """
    if not (device.type == "cuda" if wanted is None else wanted):
        return model
    if compiler := missing_compiler(device):
        report(
            f"WARNING: no {compiler} on this machine, so the network runs UNCOMPILED and slower; "
            "install it (apt-get install g++ python3-dev), or add --compile false"
        )
        return model
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dsanet" / "inductor"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    report(
        "compiling the network: the first step may take some minutes "
        f"(cached in {os.environ['TORCHINDUCTOR_CACHE_DIR']})"
    )
    # DDP's own optimiser would cut off a tiny second graph at the first bucket of 1 MB, which
    # overlaps next to nothing, and would bypass the cache of graphs at later starts.
    torch._dynamo.config.optimize_ddp = False
    return torch.compile(model, fullgraph=True, dynamic=False)  # type: ignore[return-value]


def configure(config: RuntimeConfig, device: torch.device) -> None:
    """Set torch's process-wide options."""
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = not config.deterministic
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True


def synchronised(model: nn.Module, world: World, compile_wanted: bool | None) -> nn.Module:
    """Convert BatchNorm to SyncBatchNorm, whose statistics are over all processes.

    Raises:
        UsageError: without GPUs, or with torch.compile: it would break the graph.
    """
    if world.device.type != "cuda":
        raise UsageError("--runtime.sync_batchnorm needs GPUs")
    if compile_wanted is not False:
        raise UsageError("--runtime.sync_batchnorm breaks the compiled graph; add --compile false")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def distributed(network: nn.Module, world: World, config: RuntimeConfig) -> nn.Module:
    """Wrap the network in DDP, which averages gradients over processes in the backward pass.

    BatchNorm's buffers differ between processes; `World.average_buffers` averages them.

    Raises:
        UsageError: for the bf16 hook without GPUs: gloo does not support it.
    """
    on_gpu = world.device.type == "cuda"
    if config.gradient_hook == "bf16" and not on_gpu:
        raise UsageError("--runtime.gradient_hook bf16 needs GPUs; leave it at auto")
    if world.size == 1:
        return network
    with warnings.catch_warnings():
        # torch 2.13 deprecates the name broadcast_buffers; older versions have no other.
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
