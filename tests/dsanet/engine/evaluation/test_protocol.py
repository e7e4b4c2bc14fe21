"""The presets, what overrides them, and what a network cannot take."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from dsanet.engine import UsageError
from dsanet.engine.evaluation.config import EvalConfig, out_folder, parse_eval
from dsanet.engine.evaluation.protocol import (
    PRESETS,
    Placement,
    Protocol,
    ProtocolName,
    resolve,
    sampling_for,
)
from pipelines import SamplingConfig
from pipelines.plan.sampling import SamplingMode


def protocol(
    *words: object, segments: int | None = 4, size: int = 224, **sampling: Any
) -> Protocol:
    config = parse_eval(["--data", "d", "--checkpoint", "c", *map(str, words)])
    return resolve(
        config.protocol, config.wanted, network="net", segments=segments,
        sampling=SamplingConfig(**sampling), train_size=size,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "segments", "clips", "crops", "inputs", "size"),
    [
        ((), 4, 8, 3, 6, 256),
        ((), None, 8, 3, 24, 256),
        (("--clips", 10), None, 10, 3, 30, 256),
        (("--protocol", "slowfast-10x3"), None, 10, 3, 30, 256),
        (("--protocol", "slowfast-10x3", "--clips", 12), 4, 12, 3, 9, 256),
        (("--protocol", "one-view"), 4, 4, 1, 1, 224),
        (("--protocol", "one-view"), None, 4, 1, 1, 224),
        (("--protocol", "sthv1-2x"), 4, 8, 3, 6, 256),
        (("--protocol", "sthv1-2x", "--crops", 1), 4, 8, 1, 2, 256),
        (("--protocol", "m-twi"), 4, 4, 3, 0, 256),
    ],
)
def test_views_and_inputs(
    words: tuple[object, ...], segments: int | None, clips: int, crops: int, inputs: int, size: int
) -> None:
    made = protocol(*words, segments=segments)
    assert (made.clips, made.crops, made.inputs, made.size) == (clips, crops, inputs, size)
    assert made.views == clips * crops


@pytest.mark.parametrize("name", get_args(ProtocolName))
def test_a_preset_is_named_as_long_as_nothing_differs(name: str) -> None:
    segments = None if name == "slowfast-10x3" else 4
    words = ("--protocol", name)
    assert protocol(*words, segments=segments).name == name
    own = protocol(*words, "--average", "softmax", "--size", 112, segments=segments)
    assert own.name is None
    assert own.describe().startswith("own: ")
    # The values of the preset, spelt out, are the preset.
    preset = PRESETS[name]  # type: ignore[index]
    same = ("--crops", preset.crops, "--average", preset.average, "--placement", preset.placement)
    assert protocol(*words, *same, segments=segments).name == name


def test_the_contract_of_the_command_line_is_the_papers_protocol() -> None:
    assert protocol("--clips", 8, "--crops", 3).name == "paper"
    text = protocol("--clips", 8, "--crops", 3).describe()
    assert text == "paper: 8 clips x 3 crops of 256 pixels, logits of 6 inputs averaged"


def test_windows_are_described() -> None:
    text = protocol("--protocol", "m-twi", "--crops", 1).describe()
    assert text == (
        "own: windows of 1, 2, 4, 8, 16 s, the best 15 or quarter of each length; 4 clips x 1 crop "
        "of 256 pixels in a window, logits averaged"
    )


def test_one_view_is_cut_out_as_in_validation() -> None:
    made = protocol("--protocol", "one-view", size=112)
    assert (made.size, made.short_side) == (112, 128)
    assert protocol(size=112).short_side == 112


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--clips", 10), "multiple of the 4 snippets that net mixes, such as 8 or 12, got 10"),
        (("--protocol", "slowfast-10x3"), "clips must be a multiple of the 4 snippets"),
        (("--protocol", "one-view", "--clips", 8), "clips must be 4 .sampling.segments. with"),
        (("--protocol", "one-view", "--crops", 3), "crops must be 1 with placement centre, got 3"),
        (("--protocol", "m-twi", "--clips", 8), "clips must be 4 .sampling.segments. with"),
        (("--placement", "middle"), "placement must be one of training, twice, centre, windows"),
        (("--protocol", "mine"), "protocol must be one of paper, slowfast-10x3, one-view, sthv1"),
    ],
)
def test_what_cannot_be_tested_is_refused(words: tuple[object, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        protocol(*words)


def test_every_sampling_mode_is_a_placement() -> None:
    assert set(get_args(Placement)) == {
        "training", "twice", "centre", "windows", *get_args(SamplingMode),
    }  # fmt: skip
    trained = SamplingConfig(mode="spread")
    for placement in get_args(Placement):
        sampling = sampling_for(
            protocol("--placement", placement, "--clips", 4, "--crops", 1), trained
        )
        same = placement in ("training", "twice", "centre", "windows")
        assert sampling.mode == ("spread" if same else placement)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "eval-val-8x3"),
        ({"clips": 10, "crops": 1}, "eval-val-10x1"),
        ({"protocol": "one-view"}, "eval-val-one-view"),
        ({"protocol": "slowfast-10x3", "clips": 12}, "eval-val-slowfast-10x3-12x3"),
        ({"protocol": "sthv1-2x", "crops": 1}, "eval-val-sthv1-2x-2ux1"),
        ({"placement": "mmaction2"}, "eval-val-8x3-mmaction2"),
    ],
)
def test_protocols_do_not_share_a_folder(settings: dict[str, Any], name: str) -> None:
    assert out_folder(EvalConfig(data="d", checkpoint="run", **settings)).name == name
