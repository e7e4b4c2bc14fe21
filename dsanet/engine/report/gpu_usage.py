"""Utilisation of the GPU, which nvidia-smi reports every few seconds."""

from __future__ import annotations

import shutil
import subprocess
import threading
from typing import Any

import torch

from dsanet.engine.launch.distributed import World

QUERY = ("utilization.gpu", "utilization.decoder", "utilization.jpeg")
KEYS = ("gpu_use", "decoder_use", "jpeg_use")
INTERVAL = 10.0  # seconds


class GpuMonitor:
    """Polls, in a thread, how busy the GPU of rank 0 is, with its NVDEC and JPEG engines.

    Figures are in per cent of time. Other ranks, and runs without a GPU, have none.
    """

    def __init__(self, world: World) -> None:
        self.device = world.device
        self.utilisation: dict[str, float] = {}
        if world.main and world.device.type == "cuda" and shutil.which("nvidia-smi"):
            threading.Thread(target=self._poll, name="gpu-monitor", daemon=True).start()

    def _poll(self) -> None:
        pause = threading.Event()
        while not pause.wait(INTERVAL):
            utilisation = self._query()
            if utilisation is None:  # this machine's nvidia-smi cannot report it
                return
            self.utilisation = utilisation

    def _query(self) -> dict[str, float] | None:
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
        """The latest figures and the peak of GPU memory in GiB; empty without a GPU."""
        if self.device.type != "cuda":
            return {}
        peak = torch.cuda.max_memory_allocated(self.device) / 2**30
        return {"memory_gib": peak, **self.utilisation}
