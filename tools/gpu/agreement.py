"""Compiled networks compared with eager ones, and the project's GPU tests, file by file."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import dsanet
from dsanet.engine import execution
from gpu.job import Job
from gpu.processes import run_limited

ROOT = Path(__file__).resolve().parents[2]
# One of each kind: I3D with DSA, the shift of TSM, the 4-D block, 3 x 3 x 3 convolutions.
NETWORKS = ("dsa_i3d_r50", "dsa_tsm_r50", "v4d_i3d_r50", "dsa_i3d_r18")
# Relative distances of logits and of all gradients. In fp32 both compute the same in another order.
# In bf16 both round: the compiled network may be this many times as far from fp32 as the eager one.
FP32_LOGITS, FP32_GRADIENTS, BF16_RATIO = 1e-4, 2e-3, 2.0
SECONDS_A_FILE = 90
LEAST_SECONDS = 15.0  # for one more network or file of tests


@dataclass(frozen=True)
class Result:
    """Logits and the gradients of all parameters, as one vector each, float64 on the CPU."""

    logits: torch.Tensor
    gradients: torch.Tensor


def run(job: Job) -> None:
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    for name in ("dsa_i3d_r18",) if job.sizes.toy else NETWORKS:
        if job.remaining < LEAST_SECONDS:
            job.report.add(what=f"{name}, compiled against eager", not_run="no time left")
            continue
        job.attempt(f"{name}, compiled against eager", _compare, job, name)
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = True
    if job.needs_gpu("pytest -m gpu"):
        for path in gpu_test_files(ROOT / "tests"):
            _run_tests(job, path)


def _compare(job: Job, name: str) -> None:
    """Compare a shallow network of every kind of block: a deep one only takes longer to compile."""
    network = network_of(name, job)
    size = 32 if job.sizes.toy else 64
    generator = torch.Generator().manual_seed(1)
    shape = (2, 4, 4, size, size, 3)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(job.device)
    eager = step(network, network, clips, "fp32")
    # On a CPU, where Inductor would compile C++ for a minute, only its front end runs.
    backend = "inductor" if job.gpu else "aot_eager"
    compiled = compile_with(network, backend)
    exact = step(network, compiled, clips, "fp32")
    logits, gradients = distances(exact, eager)
    passed = logits <= FP32_LOGITS and gradients <= FP32_GRADIENTS
    job.check(f"{name}, fp32, compiled against eager", passed, logits=logits, gradients=gradients,
              limits=f"{FP32_LOGITS:g}, {FP32_GRADIENTS:g}", backend=backend)  # fmt: skip
    plain = distances(step(network, network, clips, "bf16"), eager)
    ours = distances(step(network, compiled, clips, "bf16"), eager)
    passed = all(b <= BF16_RATIO * a for a, b in zip(plain, ours, strict=True))
    limits = f"{BF16_RATIO:g} x {plain[0]:.2g}, {plain[1]:.2g} of eager"
    job.check(f"{name}, bf16, compiled against eager", passed, logits=ours[0], gradients=ours[1],
              limits=limits, backend=backend)  # fmt: skip


def network_of(name: str, job: Job) -> nn.Module:
    """A network of one or two blocks a stage, in training mode, without dropout."""
    torch.manual_seed(0)
    torch.compiler.reset()
    width = job.sizes.width if job.sizes.toy else 32
    return dsanet.build_model(
        name, num_classes=10, dropout=0.0, width=width, blocks=(1, 2, 1, 1)
    ).to(job.device)


def compile_with(network: nn.Module, backend: str) -> Any:
    return torch.compile(network, fullgraph=True, dynamic=False, backend=backend)


def step(network: nn.Module, call: Any, clips: torch.Tensor, precision: str) -> Result:
    """Forward and backward of `call`, which is `network` or a compiled form of it."""
    network.train()
    network.zero_grad(set_to_none=True)
    with execution.autocast(precision, clips.device):
        logits = call(clips)
    labels = torch.arange(len(clips), device=clips.device)
    nn.functional.cross_entropy(logits.float(), labels).backward()
    gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    flat = torch.cat([gradient.double().cpu() for gradient in gradients])
    return Result(logits.detach().double().cpu().flatten(), flat)


def distances(found: Result, expected: Result) -> tuple[float, float]:
    """Relative distance of the logits and of the gradients."""
    return (
        float((found.logits - expected.logits).norm() / expected.logits.norm()),
        float((found.gradients - expected.gradients).norm() / expected.gradients.norm()),
    )


def gpu_test_files(folder: Path) -> list[Path]:
    """Test files with tests that are marked `gpu`."""
    marked = [
        p
        for p in sorted(folder.rglob("test_*.py"))
        if "pytest.mark.gpu" in p.read_text(encoding="utf-8")
    ]
    chosen = [path for path in marked if path.parent.name != "tools"]
    return sorted(
        chosen, key=lambda path: "torch.compile" in path.read_text(encoding="utf-8")
    )  # slow ones last


def _run_tests(job: Job, path: Path) -> None:
    """Run the GPU tests of one file in a process of its own, and report those that fail."""
    what = f"pytest -m gpu {path.relative_to(ROOT)}"
    limit = min(SECONDS_A_FILE, job.remaining - 3)
    if limit < LEAST_SECONDS:
        job.report.add(what=what, not_run="no time left")
        return
    result = job.scratch / "junit.xml"
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider",
               f"--junitxml={result}", "-o", "junit_logging=no", str(path)]  # fmt: skip
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    ended = run_limited(command, limit, job.scratch / "pytest.log", environment,
                        stdout=subprocess.DEVNULL, cwd=ROOT)  # fmt: skip
    counts, failures = read_junit(result) if result.exists() else ({}, [])
    if ended.code is None:
        job.check(what, False, seconds=ended.seconds, reason=f"stopped after {limit:.0f} s")
    else:
        passed = ended.code == 0 and counts.get("tests", 0) > counts.get("skipped", 0)
        job.check(what, passed, seconds=ended.seconds, exit=ended.code, **counts)
    for name, reason in failures:
        job.report.add(what="failed test", name=name, reason=reason)


def read_junit(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Counts of tests, and the name and message of each that failed, of a JUnit file."""
    suites = list(ElementTree.parse(path).getroot().iter("testsuite"))
    counts = {
        key: sum(int(suite.get(key, 0)) for suite in suites)
        for key in ("tests", "skipped", "failures", "errors")
    }
    failures = []
    for case in (case for suite in suites for case in suite.iter("testcase")):
        for child in case:
            if child.tag in ("failure", "error"):
                message = " ".join((child.get("message") or child.text or "").split())
                failures.append((case.get("name", "?"), message[:400]))
    return counts, failures
