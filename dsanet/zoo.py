"""Every network of the paper by name, and the options that make its ablations."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from torch import nn

from dsanet.blocks import Block
from dsanet.convs import SE, V4DBlock
from dsanet.dsa import DSA, aggregated_channels
from dsanet.errors import OptionError
from dsanet.recognizer import Recognizer
from dsanet.trunk import R18, R50, TSM_R50, Trunk, TrunkSpec, to_channels_last

BACKBONES: dict[str, TrunkSpec] = {"i3d_r18": R18, "i3d_r50": R50, "tsm_r50": TSM_R50}
# SE and V4D are compared on I3D alone (Tables 2a, 2h, 2i); DSA on TSM is Table 2g.
NAMES = (
    *BACKBONES,
    *(f"tsn_{name}" for name in BACKBONES),
    *(f"dsa_{name}" for name in BACKBONES),
    *(f"{family}_{name}" for family in ("v4d", "se") for name in ("i3d_r18", "i3d_r50")),
)


@dataclass(frozen=True)
class NetworkConfig:
    """Options of a network; the defaults are the paper's.

    ``alpha``, ``beta``, ``kernel_size`` (L) and ``position`` shape DSA (Table 2b, c, e); ``stages``
    (2 to 5, for res2 to res5) and ``every`` (n: the last of each n blocks) place DSA or SE
    (Table 2d, f); ``stages`` places V4D too, one after the middle block of each. ``reduction`` is
    SE's. ``dropout`` precedes the classifier. ``width`` is the stem's, and scales all; ``blocks``
    overrides the number of blocks per stage. ``inflate_shortcuts`` gives the shortcuts of inflated
    stages 3 taps over T, which comes near the paper's 32.3 M parameters for R18.
    """

    alpha: int = 2
    beta: float = 1 / 8
    kernel_size: int = 3
    position: Literal["I", "II", "III", "IV"] = "II"
    stages: tuple[int, ...] = (3, 4)
    every: int = 2
    reduction: int = 16
    dropout: float = 0.5
    width: int = 64
    blocks: tuple[int, int, int, int] | None = None
    inflate_shortcuts: bool = False


# The options beside those of every network that a family understands.
COMMON = {"dropout", "width", "blocks", "inflate_shortcuts"}
FAMILY_OPTIONS: dict[str, set[str]] = {
    "": set(),
    "tsn": set(),
    "dsa": {"alpha", "beta", "kernel_size", "position", "stages", "every"},
    "se": {"reduction", "position", "stages", "every"},
    "v4d": {"stages"},
}


def list_models() -> list[str]:
    """The names that ``build_model`` knows."""
    return list(NAMES)


def build_model(name: str, *, num_classes: int, segments: int = 4, **options: Any) -> Recognizer:
    """Build a network of the paper: uint8 (B, U, T, H, W, 3) -> float32 logits (B, num_classes).

    ``i3d_*`` and ``tsm_*`` are clip-based (trained with U = 1), ``tsn_*`` the same networks with
    snippets averaged in training; ``dsa_*`` and ``v4d_*`` mix ``segments`` = U snippets; ``se_*``
    has SE in DSA's place. ``options`` are the fields of ``NetworkConfig``.

    The result's ``segments`` is the U it must be given, or None for any number;
    ``train_segments`` the U it is meant to be trained with.

    Choices where the paper is silent: DSA in TSM sits as in I3D (position II, every second block of
    res3 and res4, the shift staying inside a snippet); SE likewise (see ``SE``); V4D's norm and
    place (see ``V4DBlock``).

    Raises:
        OptionError: an unknown name or option, an option that this network has no use for, or a
            value out of range.
    """
    if name not in NAMES:
        raise OptionError(
            f"no network {name!r}{_nearest(name, NAMES)}; there are {', '.join(NAMES)}"
        )
    family, backbone = _split(name)
    config = _config(name, family, options)
    if num_classes < 1 or segments < 1:
        raise OptionError(f"num_classes={num_classes} and segments={segments} must be 1 or more")
    trunk = Trunk(_trunk_spec(name, BACKBONES[backbone], config))
    _add_mixers(trunk, family, config, segments)
    mixes = family in ("dsa", "v4d")
    model = Recognizer(
        trunk,
        num_classes,
        segments=segments if mixes else None,
        train_segments=segments if family else 1,
        dropout=config.dropout,
    )
    to_channels_last(model)
    return model


def _split(name: str) -> tuple[str, str]:
    """'dsa_i3d_r50' -> ('dsa', 'i3d_r50'); a clip-based network's family is ''."""
    if name in BACKBONES:
        return "", name
    family, _, backbone = name.partition("_")
    return family, backbone


def _nearest(word: str, words: Any) -> str:
    near = difflib.get_close_matches(word, list(words), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _config(name: str, family: str, options: dict[str, Any]) -> NetworkConfig:
    known = {field.name for field in fields(NetworkConfig)}
    default = NetworkConfig()
    # YAML and the command line give lists.
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    for option, value in options.items():
        if option not in known:
            near = _nearest(option, known)
            raise OptionError(f"no option {option!r}{near}; there are {', '.join(sorted(known))}")
        idle = option not in COMMON | FAMILY_OPTIONS[family]
        if idle and value != getattr(default, option):
            raise OptionError(f"option {option}={value!r} means nothing to {name}; leave it out")
        kind = type(getattr(default, option))
        if not isinstance(value, (kind, int) if kind is float else kind) and option != "blocks":
            raise OptionError(f"option {option}={value!r} must be of type {kind.__name__}")
    config = replace(default, **options)
    _check(config)
    return config


def _check(config: NetworkConfig) -> None:
    if not config.stages or not set(config.stages) <= {2, 3, 4, 5}:
        raise OptionError(f"stages={config.stages} must name some of 2, 3, 4, 5 (res2 to res5)")
    if config.every < 1 or config.reduction < 1:
        raise OptionError(
            f"every={config.every} and reduction={config.reduction} must be 1 or more"
        )
    if config.width < 8 or config.width % 8:
        raise OptionError(f"width={config.width} must be a multiple of 8, at least 8")
    if not 0 <= config.dropout < 1:
        raise OptionError(f"dropout={config.dropout} must lie in [0, 1)")
    if config.blocks is not None and (len(config.blocks) != 4 or min(config.blocks) < 1):
        raise OptionError(f"blocks={config.blocks} must be four numbers of 1 or more")


def _trunk_spec(name: str, spec: TrunkSpec, config: NetworkConfig) -> TrunkSpec:
    if config.inflate_shortcuts and not spec.inflated:
        raise OptionError(f"option inflate_shortcuts=True means nothing to {name}; leave it out")
    blocks = config.blocks or spec.blocks
    return replace(
        spec, width=config.width, blocks=blocks, inflate_shortcuts=config.inflate_shortcuts
    )


def _add_mixers(trunk: Trunk, family: str, config: NetworkConfig, segments: int) -> None:
    """Insert the family's modules into the trunk's blocks."""
    if family not in ("dsa", "se", "v4d"):
        return
    if family == "v4d":
        for block in _middle_blocks(trunk, config):
            block.insert(V4DBlock(block.channels_at("end"), segments), "end")
        return
    position = config.position
    for block in _every_nth(trunk, config):
        if position not in block.positions:
            has = ", ".join(block.positions)
            raise OptionError(f"position={position!r} is not in this network's block; {has} are")
        block.insert(_mixer(family, block.channels_at(position), config, segments), position)


def _mixer(family: str, channels: int, config: NetworkConfig, segments: int) -> nn.Module:
    if family == "se":
        return SE(channels, config.reduction)
    aggregated_channels(channels, config.beta)  # refuse now what the first step would refuse
    return DSA(segments, alpha=config.alpha, beta=config.beta, kernel_size=config.kernel_size)


def _every_nth(trunk: Trunk, config: NetworkConfig) -> list[Block]:
    """The last of each ``every`` blocks of the stages: blocks 2, 4, 6 of res4 for every=2."""
    stages = [trunk.stage(number) for number in sorted(set(config.stages))]
    blocks = [block for stage in stages for block in stage[config.every - 1 :: config.every]]
    if not blocks:
        raise OptionError(f"every={config.every} picks no block of {config.stages}; lower every")
    return blocks


def _middle_blocks(trunk: Trunk, config: NetworkConfig) -> list[Block]:
    """One block per stage, the middle one (the lower of two)."""
    stages = [trunk.stage(number) for number in sorted(set(config.stages))]
    return [stage[(len(stage) - 1) // 2] for stage in stages]
