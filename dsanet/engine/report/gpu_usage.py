"""Use of the GPU, looked at from outside now and then."""

from __future__ import annotations

import shutil
import subprocess
import threading
from typing import Any

import torch

from dsanet.engine.launch.distributed import World

QUERY = ("utilization.gpu", "utilization.decoder", "utilization.jpeg")
KEYS = ("gpu_use", "decoder_use", "jpeg_use")
SECONDS = 10.0


class GpuMonitor:
    """Per cent of time that the first process's GPU, its NVDEC and its JPEG engines are busy."""

    def __init__(self, world: World) -> None:
        self.device = world.device
        self.use: dict[str, float] = {}
        if world.main and world.device.type == "cuda" and shutil.which("nvidia-smi"):
            threading.Thread(target=self._watch, name="gpu-monitor", daemon=True).start()

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(SECONDS):
            if (use := self._ask()) is None:
                return
            self.use = use

    def _ask(self) -> dict[str, float] | None:
        uuid = f"GPU-{torch.cuda.get_device_properties(self.device).uuid}"
        command = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "-i", uuid]
        try:
            done = subprocess.run(
                [*command, "--format=csv,noheader,nounits"],
                capture_output=True, text=True, timeout=20, check=True,
            )  # fmt: skip
            values = [part.strip() for part in done.stdout.split(",")]
            return {k: float(v) for k, v in zip(KEYS, values, strict=True) if v.isdigit()}
        except (OSError, ValueError, subprocess.SubprocessError):
            return None

    def read(self) -> dict[str, Any]:
        """The latest figures, with the peak of GPU memory in GiB; nothing without a GPU."""
        if self.device.type != "cuda":
            return {}
        return {"memory_gib": torch.cuda.max_memory_allocated(self.device) / 2**30, **self.use}
