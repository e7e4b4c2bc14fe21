"""A training step and 8x3 inference of a network, compared with the released formulation of it."""

from __future__ import annotations

import argparse
import statistics
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn

from benches.kernels import compare
from benches.released_network import ReleasedNetwork, normalise, plan_for
from benches.report import Report, failure
from benches.timing import Timing, time_block
from dsanet import build_model, list_models
from dsanet.complexity import Complexity, View, count_model

CLASSES = 400
GROUPS = 2  # 8 clips are 2 groups of 4 snippets
CROPS = 3
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Contestant:
    """A network in one formulation and precision.

    formulation is "release" (Conv3d, NCDHW), "release 3d" (Conv3d, channels_last_3d) or "folded"
    (this package).
    """

    network: str
    formulation: str
    precision: str
    compiled: bool = False

    @property
    def how(self) -> str:
        compiled = "compiled" if self.compiled else "eager"
        return f"{self.formulation} {self.precision} {compiled}"


@dataclass(frozen=True)
class Size:
    """The input and width of all contestants: videos per step, the view, channels of the stem."""

    batch: int
    view: View
    width: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="default: dsa_i3d_r50 on a GPU, dsa_i3d_r18 on a CPU")
    parser.add_argument("--batch", type=int, help="videos per step (32 on a GPU, 2 on a CPU)")
    parser.add_argument(
        "--frames",
        type=int,
        nargs="+",
        metavar="T",
        help="frames per snippet (4 and 8 on a GPU, 4 on a CPU)",
    )
    parser.add_argument(
        "--size", type=int, help="training crop in pixels (224 on a GPU, 64 on a CPU)"
    )
    parser.add_argument("--width", type=int, help="channels of the stem (64 on a GPU, 32 on a CPU)")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=("train", "infer"),
        default=("train", "infer"),
        help="what to time (both)",
    )
    parser.add_argument(
        "--kernels", action="store_true", help="time only the forms of a 3x3x3 kernel"
    )
    parser.add_argument(
        "--blocks", type=int, default=5, help="timed blocks of each contestant, alternating (5)"
    )
    parser.add_argument("--calls", type=int, help="steps in a block (10 on a GPU, 2 on a CPU)")
    parser.add_argument("--mode", default="default", help="torch.compile's mode")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="also time compiled networks (default: on a GPU; a CPU compiles for minutes)",
    )


def run(args: argparse.Namespace, report: Report) -> None:
    """Report one row for each contestant and size; one that cannot run is a row too."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.type == "cuda"
    args.calls = args.calls or (10 if gpu else 2)
    args.compile = gpu if args.compile is None else args.compile
    if gpu:
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    if args.kernels:
        compare(args, report, device)
        return
    for frames in args.frames or ((4, 8) if gpu else (4,)):
        for part in args.parts:
            Round(args, report, device, part, frames).run()
    if not gpu:
        _not_measured(report)


class Round:
    """All contestants of one part ("train" or "infer") at one T."""

    def __init__(
        self, args: argparse.Namespace, report: Report, device: torch.device, part: str, frames: int
    ) -> None:
        gpu = device.type == "cuda"
        self.args, self.report, self.device, self.part = args, report, device, part
        self.name = args.model or ("dsa_i3d_r50" if gpu else "dsa_i3d_r18")
        self.backbone = "_".join(self.name.split("_")[-2:])
        size = args.size or (224 if gpu else 64)
        if part == "infer":
            size = size * 256 // 224 // 8 * 8
        batch = args.batch or (32 if gpu else 2)
        batch = batch if part == "train" else max(batch // (GROUPS * CROPS), 1)
        self.size = Size(batch, View(4, frames, size), args.width or (64 if gpu else 32))
        self.first_row = len(report.rows)
        self.calls: dict[Contestant, Callable[[], None]] = {}
        self.peaks: dict[Contestant, dict[str, float]] = {}
        self.blocks: dict[Contestant, list[float]] = {}
        self.failed: dict[Contestant, str] = {}

    def contestants(self) -> list[Contestant]:
        """The released formulation, this package's, and the TSN and V4D networks for comparison."""
        half = "fp16" if self.device.type == "cuda" else "bf16"
        others = [f"{family}_{self.backbone}" for family in ("tsn", "v4d")]
        others = [name for name in others if name in list_models() and name != self.name]
        chosen = [Contestant(self.name, "release", "fp32"), Contestant(self.name, "release", half)]
        for compiled in (False, True) if self.args.compile else (False,):
            if compiled:
                chosen.append(Contestant(self.name, "release 3d", "bf16", compiled))
            elif self.device.type == "cpu":
                chosen.append(Contestant(self.name, "folded", "fp32"))
            names = (self.name, *others) if compiled or not self.args.compile else (self.name,)
            chosen += [Contestant(n, "folded", "bf16", compiled) for n in names]
        return chosen

    def run(self) -> None:
        """Time all contestants in alternating blocks.

        Before its first block a contestant is warmed up, and its peak memory noted. The rows are
        written after each of these first blocks, which take longest, and after each round.
        """
        torch.compiler.reset()  # the code compiled for the last round counts towards a limit
        for contestant in self.contestants():
            self.attempt(contestant, self.start)
            self.write_rows()
        for _ in range(self.args.blocks - 1):
            for contestant in list(self.calls):
                self.attempt(contestant, self.time_block)
            self.write_rows()

    def attempt(self, contestant: Contestant, action: Callable[[Contestant], None]) -> None:
        """A contestant that raises gets a row that says so, and the others go on."""
        try:
            action(contestant)
        except Exception as error:
            traceback.print_exc()
            out_of_memory = isinstance(error, torch.OutOfMemoryError)
            self.failed[contestant] = "out of memory" if out_of_memory else failure(error)
            self.report.failures += not out_of_memory
            self.calls.pop(contestant, None)

    def start(self, contestant: Contestant) -> None:
        """Build and warm up a contestant, and time its first block."""
        call = Stepper(contestant, self.size, self.device, self.part, self.args.mode).call
        self.peaks[contestant] = _peak(call, self.device)
        self.calls[contestant] = call
        self.time_block(contestant)

    def time_block(self, contestant: Contestant) -> None:
        """Time one block of a contestant."""
        seconds = time_block(self.calls[contestant], self.args.calls)
        self.blocks.setdefault(contestant, []).append(seconds)

    def write_rows(self) -> None:
        """Report the blocks so far of all contestants."""
        times = {c: Timing(tuple(blocks)) for c, blocks in self.blocks.items()}
        rows = []
        for contestant in self.contestants():
            if contestant in self.failed:
                rows.append(self.describe(contestant) | {"ms": self.failed[contestant]})
            elif contestant in times:
                row = self.measured(contestant, times) | self.peaks[contestant]
                rows.append(self.describe(contestant) | row)
        self.report.replace(rows, self.first_row)

    def describe(self, contestant: Contestant) -> dict[str, object]:
        view = self.size.view
        shape = f"{self.size.batch} x U{view.segments} T{view.frames} {view.size}px"
        return {
            "what": self.part if self.part == "train" else "8x3",
            "network": contestant.network,
            "how": contestant.how,
            "videos": shape if self.size.width == 64 else f"{shape} w{self.size.width}",
        }

    def measured(
        self, contestant: Contestant, times: dict[Contestant, Timing]
    ) -> dict[str, object]:
        """Times and rates, the speed relative to the release in fp32, and the time added to TSN."""
        timing = times[contestant]
        cost = _cost(contestant.network, self.size)
        work = 6 if self.part == "train" else 2 * GROUPS * CROPS  # FLOPs per multiply-add
        flops = cost.multiply_adds * work * self.size.batch
        base = times.get(Contestant(self.name, "release", "fp32"))
        return {
            "ms": timing.median * 1e3,
            "spread": timing.spread,
            "videos_s": self.size.batch / timing.median,
            "tflops": flops / timing.median / 1e12,
            "ratio": base.median / timing.median if base else None,
            "over_tsn": self.over_tsn(contestant, times),
        }

    def over_tsn(self, contestant: Contestant, times: dict[Contestant, Timing]) -> str:
        """Time that the network takes beyond TSN: the median over the blocks, in percent."""
        plain = times.get(replace(contestant, network=f"tsn_{self.backbone}"))
        if plain is None or contestant.network.startswith("tsn"):
            return ""
        pairs = zip(times[contestant].blocks, plain.blocks, strict=False)  # one may be ahead
        return f"{statistics.median(a / b - 1 for a, b in pairs):+.1%}"


class Stepper:
    """A contestant with its input: `call` runs one training step or one inference."""

    def __init__(
        self, contestant: Contestant, size: Size, device: torch.device, part: str, mode: str
    ) -> None:
        torch.manual_seed(0)
        self.contestant, self.device = contestant, device
        self.model, self.clips = _network(contestant, size, device, part)
        self.labels = torch.randint(0, CLASSES, (size.batch,), device=device)
        self.forward: nn.Module | Callable[[Tensor], Tensor] = self.model
        if contestant.compiled:
            fullgraph = contestant.formulation == "folded"
            self.forward = torch.compile(self.model, fullgraph=fullgraph, dynamic=False, mode=mode)
        self.scaler = torch.amp.GradScaler(device.type, enabled=contestant.precision == "fp16")
        self.call = self.train if part == "train" else self.infer
        if part == "infer":
            self.model.eval()
        fused = device.type == "cuda"
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            0.01,
            momentum=0.9,
            weight_decay=1e-4,
            nesterov=True,
            fused=fused,
        )

    def autocast(self) -> AbstractContextManager[object]:
        dtype = DTYPES[self.contestant.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32)

    def train(self) -> None:
        """Forward, loss, backward, SGD."""
        with self.autocast():
            loss = nn.functional.cross_entropy(self.forward(self.clips).float(), self.labels)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.wait()

    def infer(self) -> None:
        """Forward of all views of the videos; their logits are averaged."""
        with torch.inference_mode(), self.autocast():
            logits = self.forward(self.clips)
            logits.float().unflatten(0, (-1, GROUPS * CROPS)).mean(1)
        self.wait()

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


@cache
def _cost(network: str, size: Size) -> Complexity:
    return count_model(network, CLASSES, size.view, width=size.width)


def _network(
    contestant: Contestant, size: Size, device: torch.device, part: str
) -> tuple[nn.Module, Tensor]:
    """The network and its input, on the device; the release gets normalised floats."""
    view = size.view
    videos = size.batch * (1 if part == "train" else GROUPS * CROPS)
    shape = (videos, view.segments, view.frames, view.size, view.size, 3)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    name, width = contestant.network, size.width
    if contestant.formulation == "folded":
        model: nn.Module = build_model(name, num_classes=CLASSES, width=width)
        return model.to(device), clips
    model = ReleasedNetwork(plan_for(name, width=width), CLASSES)
    if contestant.formulation == "release 3d":
        model = model.to(memory_format=torch.channels_last_3d)
        frames = normalise(clips).flatten(0, 1).contiguous(memory_format=torch.channels_last_3d)
        return model.to(device), frames.unflatten(0, (videos, view.segments))
    return model.to(device), normalise(clips)


def _peak(call: Callable[[], None], device: torch.device) -> dict[str, float]:
    """Peak memory in GiB of the second call; the first one compiles and tunes. Empty on a CPU."""
    call()
    if device.type != "cuda":
        return {}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    call()
    return {"peak_gib": torch.cuda.max_memory_allocated() / 2**30}


def _not_measured(report: Report) -> None:
    """Report the rows that need a GPU as not measured."""
    for what, frames, size in (("train", 4, 224), ("train", 8, 224), ("8x3", 4, 256)):
        shape = f"32 x U4 T{frames} {size}px, GPU"
        how = "folded bf16 compiled"
        row = {"what": what, "network": "dsa_i3d_r50", "how": how, "videos": shape}
        report.add(**row, ms=None, spread=None, videos_s=None, tflops=None, ratio=None, over_tsn="")
