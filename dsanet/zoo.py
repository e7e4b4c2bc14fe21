"""Builds the networks of the paper by name, with the options of its ablations."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from torch import nn

from dsanet.blocks import Block
from dsanet.convs import SE, V4DBlock
from dsanet.dsa import DSA, aggregated_channels
from dsanet.errors import OptionError, check_choices, require
from dsanet.recognizer import MEAN, STD, Recognizer
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

    Attributes:
        alpha: width of DSA's hidden layer in units of U (Table 2c).
        beta: share of the channels that DSA mixes (Table 2e).
        kernel_size: number of snippets that DSA mixes (L in the paper).
        position: position of DSA or SE in a residual block (Table 2b).
        stages: stages with DSA, SE or V4D, 2 to 5 for res2 to res5 (Table 2d, 2f).
        every: with n, DSA or SE is in the last of each n blocks of a stage.
        reduction: number of channels of SE per unit of its hidden layer.
        dropout: probability of dropout before the classifier.
        width: channels of the stem; all other widths scale with it.
        blocks: residual blocks of each of the four stages; null: those of the backbone.
        inflate_shortcuts: give the shortcuts of inflated stages 3 taps over T, which comes near
            the paper's 32.3 M parameters for R18.
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
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD


# Options of all networks, then those of each family.
COMMON = {"dropout", "width", "blocks", "inflate_shortcuts", "mean", "std"}
FAMILY_OPTIONS: dict[str, set[str]] = {
    "": set(),
    "tsn": set(),
    "dsa": {"alpha", "beta", "kernel_size", "position", "stages", "every"},
    "se": {"reduction", "position", "stages", "every"},
    "v4d": {"stages"},
}
# Far above any use; they keep the settings in a stranger's checkpoint from filling the memory.
MOST = {"alpha": 1024, "kernel_size": 99, "reduction": 65_536, "every": 1024, "width": 2048}
MOST_BLOCKS, MOST_SEGMENTS, MOST_CLASSES = 200, 4096, 2**24


def list_models() -> list[str]:
    """Names of the networks that ``build_model`` builds."""
    return list(NAMES)


def build_model(name: str, *, num_classes: int, segments: int = 4, **options: Any) -> Recognizer:
    """Build a network of the paper: uint8 (B, U, T, H, W, 3) -> float32 logits (B, num_classes).

    ``i3d_*`` and ``tsm_*`` are clip-based (trained with U = 1), ``tsn_*`` are the same networks
    with the snippets averaged in training, ``dsa_*`` and ``v4d_*`` mix ``segments`` = U snippets,
    and ``se_*`` have SE in place of DSA. ``options`` are the fields of ``NetworkConfig``.

    The result's ``segments`` is the U of its input, or None for any number; ``train_segments`` is
    the U to train with.

    Where the paper does not specify them: DSA in TSM is placed as in I3D (position II, every second
    block of res3 and res4, with the shift inside a snippet), and so is SE (see ``SE``); for V4D's
    norm and position see ``V4DBlock``.

    Raises:
        OptionError: an unknown name or option, an option that this network does not have, or a
            value out of range.
    """
    if name not in NAMES:
        raise OptionError(
            f"unknown network {name!r}{_nearest(name, NAMES)}; known: {', '.join(NAMES)}"
        )
    family, backbone = _split(name)
    config = _config(name, family, options)
    for option, value, most in (
        ("num_classes", num_classes, MOST_CLASSES),
        ("segments", segments, MOST_SEGMENTS),
    ):
        _check_type(option, value, int)
        require(value >= 1, option, "be at least 1", value)
        require(value <= most, option, f"be at most {most}", value)
    trunk = Trunk(_trunk_spec(name, BACKBONES[backbone], config))
    _add_mixers(trunk, family, config, segments)
    mixes = family in ("dsa", "v4d")
    model = Recognizer(
        trunk,
        num_classes,
        segments=segments if mixes else None,
        train_segments=segments if family else 1,
        dropout=config.dropout,
        mean=config.mean,
        std=config.std,
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
    """The options of a network as a NetworkConfig, with every value checked."""
    known = {field.name for field in fields(NetworkConfig)}
    default = NetworkConfig()
    # YAML and the command line give lists.
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    for option, value in options.items():
        if option not in known:
            near = _nearest(option, known)
            raise OptionError(f"unknown option {option!r}{near}; known: {', '.join(sorted(known))}")
        if option not in COMMON | FAMILY_OPTIONS[family] and value != getattr(default, option):
            raise OptionError(f"{name} has no option {option} (got {value!r}); leave it out")
        _check_type(option, value, type(getattr(default, option)))
    config = replace(default, **options)
    _check(config)
    return config


def _check_type(option: str, value: object, expected: type) -> None:
    """Refuse a value of another type than the option's default; `blocks` has None as default."""
    if option == "blocks":
        expected = type(value) if value is None else tuple
    types = (float, int) if expected is float else (expected,)
    valid = isinstance(value, types) and (expected is bool or not isinstance(value, bool))
    require(valid, option, f"be of type {expected.__name__}", value)
    if isinstance(value, tuple):
        number = float if option in ("mean", "std") else int
        for item in value:
            valid = isinstance(item, (number, int)) and not isinstance(item, bool)
            require(valid, option, f"hold values of type {number.__name__}", value)


def _check(config: NetworkConfig) -> None:
    check_choices(config, "")
    stages, width, dropout, blocks = config.stages, config.width, config.dropout, config.blocks
    valid = bool(stages) and set(stages) <= {2, 3, 4, 5}
    require(valid, "stages", "be some of 2, 3, 4, 5 (res2 to res5)", stages)
    require(config.every >= 1, "every", "be at least 1", config.every)
    require(config.reduction >= 1, "reduction", "be at least 1", config.reduction)
    require(width >= 8 and width % 8 == 0, "width", "be a multiple of 8, at least 8", width)
    require(0 <= dropout < 1, "dropout", "be in [0, 1)", dropout)
    valid = blocks is None or (len(blocks) == 4 and min(blocks) >= 1)
    require(valid, "blocks", "be four numbers of at least 1", blocks)
    valid = blocks is None or max(blocks) <= MOST_BLOCKS
    require(valid, "blocks", f"be at most {MOST_BLOCKS} each", blocks)
    for option, most in MOST.items():
        value = getattr(config, option)
        require(value <= most, option, f"be at most {most}", value)
    _check_normalisation(config)


def _check_normalisation(config: NetworkConfig) -> None:
    valid = len(config.mean) == 3 and all(math.isfinite(v) for v in config.mean)
    require(valid, "mean", "be three finite numbers", config.mean)
    valid = len(config.std) == 3 and all(math.isfinite(v) and v > 0 for v in config.std)
    require(valid, "std", "be three finite numbers greater than 0", config.std)


def _trunk_spec(name: str, spec: TrunkSpec, config: NetworkConfig) -> TrunkSpec:
    if config.inflate_shortcuts and not spec.inflated:
        raise OptionError(f"{name} has no option inflate_shortcuts (got True); leave it out")
    blocks = config.blocks or spec.blocks
    return replace(
        spec, width=config.width, blocks=blocks, inflate_shortcuts=config.inflate_shortcuts
    )


def _add_mixers(trunk: Trunk, family: str, config: NetworkConfig, segments: int) -> None:
    """Insert the modules of a family into the blocks of a trunk."""
    if family not in ("dsa", "se", "v4d"):
        return
    if family == "v4d":
        for block in _middle_blocks(trunk, config):
            block.insert(V4DBlock(block.channels_at("end"), segments), "end")
        return
    position = config.position
    for block in _every_nth(trunk, config):
        allowed = ", ".join(block.positions)
        must = f"be one of {allowed} for this backbone"
        require(position in block.positions, "position", must, position)
        block.insert(_mixer(family, block.channels_at(position), config, segments), position)


def _mixer(family: str, channels: int, config: NetworkConfig, segments: int) -> nn.Module:
    if family == "se":
        return SE(channels, config.reduction)
    aggregated_channels(channels, config.beta)  # an error here, not in the first step
    return DSA(segments, alpha=config.alpha, beta=config.beta, kernel_size=config.kernel_size)


def _every_nth(trunk: Trunk, config: NetworkConfig) -> list[Block]:
    """The last of each ``every`` blocks of a stage: blocks 2, 4, 6 of res4 for every = 2."""
    stages = [trunk.stage(number) for number in sorted(set(config.stages))]
    blocks = [block for stage in stages for block in stage[config.every - 1 :: config.every]]
    must = f"leave at least one block of stages {config.stages}"
    require(bool(blocks), "every", must, config.every)
    return blocks


def _middle_blocks(trunk: Trunk, config: NetworkConfig) -> list[Block]:
    """The middle block of each stage, the lower one of two."""
    stages = [trunk.stage(number) for number in sorted(set(config.stages))]
    return [stage[(len(stage) - 1) // 2] for stage in stages]
