"""Test protocols: which views of a video are scored, and how their scores are averaged.

A view is one crop of one clip. An input of the network is one crop of U clips for a network that
mixes U snippets, and one view for others.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from dsanet.engine.errors import UsageError
from dsanet.engine.evaluation.accuracy import Average
from dsanet.errors import require
from pipelines import SamplingConfig
from pipelines.plan.windows import SECONDS

ProtocolName = Literal["paper", "slowfast-10x3", "one-view", "sthv1-2x", "m-twi"]
Placement = Literal[
    "training", "twice", "centre", "windows",
    "segments", "release", "dense", "uniform", "spread", "mmaction2", "pyslowfast",
]  # fmt: skip
Crops = Literal[1, 3]


# M-TWI averages the K best scores of the windows of one length, K = max(LEAST, windows // SHARE).
LEAST, SHARE = 15, 4


@dataclass(frozen=True)
class Preset:
    """The settings of a protocol by its name.

    crops, placement, average: see EvalConfig. clips: K clips of a video; None for U in each of the
    `passes` over it.
    """

    crops: Crops
    placement: Placement
    average: Average
    clips: int | None = None
    passes: int = 1


PRESETS: dict[ProtocolName, Preset] = {
    # Section 4.2: 8 clips, 3 crops; logits are averaged in the authors' code.
    "paper": Preset(3, "training", "logits", clips=8),
    # SlowFast, section 4, and PySlowFast's test: 10 clips, 3 crops, the mean of probabilities.
    "slowfast-10x3": Preset(3, "pyslowfast", "softmax", clips=10),
    # The input of validation during training.
    "one-view": Preset(1, "centre", "logits"),
    # TSM's accurate setting on Something-Something: two passes, three crops of the full height.
    "sthv1-2x": Preset(3, "twice", "logits", passes=2),
    # Table 5: TSN's windows over whole videos; see evaluation/windows.py.
    "m-twi": Preset(3, "windows", "logits"),
}


@dataclass(frozen=True)
class Protocol:
    """How each video of a split is tested.

    Attributes:
        name: of the preset with these settings; None for others.
        clips: K clips of a video.
        crops: crops of each clip.
        placement: where the clips lie in time, see EvalConfig.
        average: what is averaged over the inputs of a video.
        size: side of a crop in pixels.
        short_side: of the resized frame that the crop is cut from, in pixels.
        segments: U, the snippets that the network mixes; None where it takes clips one by one.
    """

    name: ProtocolName | None
    clips: int
    crops: Crops
    placement: Placement
    average: Average
    size: int
    short_side: int
    segments: int | None

    @property
    def views(self) -> int:
        """Views of a video, or of one window of it."""
        return self.clips * self.crops

    @property
    def inputs(self) -> int:
        """Inputs of the network for a video; 0 for windows, whose number depends on it."""
        if self.placement in ("centre", "windows"):
            return int(self.placement == "centre")
        return self.crops * (self.clips // (self.segments or 1))

    def describe(self) -> str:
        """The protocol as one line, such as "paper: 8 clips x 3 crops of 256 pixels, ..."."""
        placed = {"training": "", "centre": ", centred", "twice": ", two passes"}
        place = placed.get(self.placement, f", placed as by {self.placement}")
        clips = "1 clip" if self.clips == 1 else f"{self.clips} clips"
        crops = "1 crop" if self.crops == 1 else f"{self.crops} crops"
        count = self.inputs
        if self.placement == "windows":
            return (
                f"{self.name or 'own'}: {describe_windows()}; {clips} x {crops} of {self.size} "
                f"pixels in a window, {self.average} averaged"
            )
        inputs = "1 input" if count == 1 else f"{self.average} of {count} inputs averaged"
        return f"{self.name or 'own'}: {clips} x {crops} of {self.size} pixels{place}, {inputs}"

    def record(self) -> dict[str, Any]:
        """The protocol as a JSON object."""
        settings = asdict(self)
        name = settings.pop("name")
        # Last, so that a difference between two protocols is found in a setting.
        return settings | {"name": name, "description": self.describe()}


def describe_windows() -> str:
    """The windows of M-TWI as text."""
    seconds = ", ".join(f"{length:g}" for length in SECONDS)
    return f"windows of {seconds} s, the best {LEAST} or quarter of each length"


@dataclass(frozen=True)
class Wanted:
    """What a user has set of a protocol; None leaves it to the preset."""

    clips: int | None = None
    crops: Crops | None = None
    placement: Placement | None = None
    average: Average | None = None
    size: int | None = None


def resolve(
    name: ProtocolName,
    wanted: Wanted,
    *,
    network: str,
    segments: int | None,
    sampling: SamplingConfig,
    train_size: int,
) -> Protocol:
    """The protocol of an evaluation: the preset `name`, with what is `wanted` instead.

    network: its name, for messages. segments: U that it mixes, or None. sampling, train_size: of
    its training.

    Raises:
        UsageError: for a number of clips or crops that the network or the placement cannot take.
    """

    def build(wanted: Wanted) -> Protocol:
        preset = PRESETS[name]
        placement = wanted.placement or preset.placement
        clips = wanted.clips or preset.clips or preset.passes * sampling.segments
        centred = placement == "centre"
        size = wanted.size or (256 if train_size == 224 and not centred else train_size)
        return Protocol(
            name=name,
            clips=clips,
            crops=wanted.crops or preset.crops,
            placement=placement,
            average=wanted.average or preset.average,
            size=size,
            # A centred view is cut out as in validation; others are as high as the frame.
            short_side=round(size * 256 / 224) if centred else size,
            segments=segments,
        )

    protocol = build(wanted)
    _check(protocol, network, sampling)
    return protocol if protocol == build(Wanted()) else replace(protocol, name=None)


def _check(protocol: Protocol, network: str, sampling: SamplingConfig) -> None:
    if protocol.placement in ("centre", "windows"):
        U = sampling.segments
        must = f"be {U} (sampling.segments) with placement {protocol.placement}"
        require(protocol.clips == U, "clips", must, protocol.clips, UsageError)
    if protocol.placement == "centre":
        must = "be 1 with placement centre"
        require(protocol.crops == 1, "crops", must, protocol.crops, UsageError)
        return
    length = protocol.segments or 1
    near = protocol.clips // length * length
    such = f"{near} or {near + length}" if near else str(length)
    must = f"be a multiple of the {length} snippets that {network} mixes, such as {such}"
    require(protocol.clips % length == 0, "clips", must, protocol.clips, UsageError)


def sampling_for(protocol: Protocol, sampling: SamplingConfig) -> SamplingConfig:
    """The sampling of a test: that of training, with the mode of the protocol's placement."""
    if protocol.placement in ("training", "twice", "centre", "windows"):
        return sampling
    return replace(sampling, mode=protocol.placement)  # type: ignore[arg-type]
