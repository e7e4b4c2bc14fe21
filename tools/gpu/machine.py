"""The machine: driver, engines, versions, and the libraries that decoding really loads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from dsanet.engine.environment import torch_faults, versions
from dsanet.engine.execution import missing_compiler
from gpu.frames import decode_jpegs, jpegs
from gpu.job import Job

LIBRARIES = re.compile(r"nvjpeg|nvcuvid|nvimgcodec|libcuda\.so|cudnn|nvcomp|nvtiff|npp|dali")
QUERY = ("name", "driver_version", "memory.total", "compute_mode", "power.limit", "clocks.max.sm",
         "pcie.link.gen.max", "pcie.link.width.max", "mig.mode.current")  # fmt: skip
ENGINES = ("Encoder", "Decoder", "JPEG", "OFA")


def run(job: Job) -> None:
    report = job.report
    for name, version in versions().items():
        report.add(what=f"version of {name}", value=version)
    missing = missing_compiler(job.device)
    for fault in torch_faults(str(torch.__version__)):
        report.add(what="known fault", value=fault)
    report.add(what="compiler", value=f"{missing} is missing" if missing else "found")
    report.add(what="cores", value=len(os.sched_getaffinity(0)))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    report.add(what="memory, GiB", value=memory / 2**30)
    free = shutil.disk_usage(job.scratch).free
    report.add(what="free disk of the scratch folder, GiB", value=free / 2**30)
    if job.needs_gpu("GPU"):
        job.attempt("GPU seen by torch", _torch_device, job)
        job.attempt("nvidia-smi", _nvidia_smi, job)
    job.attempt("libraries of the JPEG decoder", _libraries, job)
    job.attempt("packages of the JPEG decoder", _packages, job)


def _torch_device(job: Job) -> None:
    properties = torch.cuda.get_device_properties(job.device)
    job.report.add(
        what="GPU seen by torch", name=properties.name, count=torch.cuda.device_count(),
        capability=f"{properties.major}.{properties.minor}",
        memory_gib=properties.total_memory / 2**30, processors=properties.multi_processor_count,
        bf16=torch.cuda.is_bf16_supported(including_emulation=False),
        built_for=" ".join(torch.cuda.get_arch_list()),
    )  # fmt: skip


def _nvidia_smi(job: Job) -> None:
    words = [f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
    for line in _smi(*words).splitlines():
        job.report.add(what="nvidia-smi", **dict(zip(QUERY, line.split(", "), strict=False)))
    engines = engines_of(_smi("-q", "-d", "UTILIZATION"))
    job.report.add(what="engines of nvidia-smi", **engines)


def _smi(*words: str) -> str:
    done = subprocess.run(["nvidia-smi", *words], capture_output=True, text=True, timeout=20)
    if done.returncode:
        raise RuntimeError(f"nvidia-smi {' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def engines_of(text: str) -> dict[str, str]:
    """Use of each engine in the text of `nvidia-smi -q -d UTILIZATION`; "N/A": it has none."""
    found = dict(re.findall(r"^\s+(\w+)\s+: (.+?)\s*$", text, re.MULTILINE))
    return {name: found[name] for name in ENGINES if name in found}


def _libraries(job: Job) -> None:
    """Decode one batch of JPEGs, and report which libraries this process has loaded for it."""
    images = jpegs([(64, 80), (50, 70)])
    boxes = np.array([[[0, 0, 64, 80]], [[0, 0, 50, 70]]], np.float32)
    decode_jpegs(images, boxes, 32, job.device)
    loaded = mapped_libraries(Path("/proc/self/maps").read_text(encoding="utf-8"))
    for path in loaded:
        job.report.add(what="loaded library", value=path)
    if job.needs_gpu("JPEGs are decoded by nvJPEG"):
        found = [path for path in loaded if re.search(r"/libnvjpeg[\w-]*\.so", path)]
        job.check("JPEGs are decoded by nvJPEG", bool(found), value=" ".join(found) or "not loaded")


def mapped_libraries(maps: str) -> list[str]:
    """Paths of the decoding libraries in the text of /proc/PID/maps."""
    paths = {line.split(maxsplit=5)[5] for line in maps.splitlines() if line.count(" /")}
    return sorted(path for path in paths if ".so" in path and LIBRARIES.search(Path(path).name))


def _packages(job: Job) -> None:
    for item in sorted(metadata.distributions(), key=lambda item: str(item.metadata["Name"])):
        name = str(item.metadata["Name"])
        if re.match(r"nvidia-(nv|dali|cudnn)|nvidia-libnvcomp|triton", name):
            job.report.add(what="package", value=f"{name} {item.version}")
