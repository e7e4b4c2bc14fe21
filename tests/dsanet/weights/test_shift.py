"""Weights of a network with another temporal shift are refused: tensors alone do not tell."""

from __future__ import annotations

import re

import pytest
import torch

from dsanet import ModelError, build_model, load_weights

TINY = {"num_classes": 5, "width": 16, "blocks": (1, 2, 1, 1)}
# A plain ResNet in the names of each code base, and the name of a shifted first convolution.
CODE_BASES = {
    "TSM release": ("base_model.", "new_fc.", "{}.conv1.net.weight"),
    "mmaction2": ("backbone.", "cls_head.fc_cls.", "{}.conv1.conv.net.weight"),
    "DSANet release": ("backbone.", "cls_head.fc_cls.", "{}.conv1.net.weight"),
}


def plain(code_base: str) -> dict[str, torch.Tensor]:
    """A 2-D network, a TSN, as the code base writes it."""
    backbone, head, _ = CODE_BASES[code_base]
    state = {}
    for name, tensor in build_model("tsm_r50", **TINY).state_dict().items():
        name = name.replace("trunk.", backbone).replace("fc.", head, name.startswith("fc."))
        if code_base == "mmaction2":
            name = name.replace("shortcut.", "downsample.")
            name = re.sub(r"\.conv(\d)\.", r".conv\1.conv.", name)
            name = re.sub(r"\.bn(\d)\.", r".conv\1.bn.", name)
        else:
            name = name.replace("shortcut.conv", "downsample.0")
            name = name.replace("shortcut.bn", "downsample.1")
        state[name] = tensor
    return state


def shifted(code_base: str, where: str = "conv1", blocks: str = r"layer\d\.\d") -> dict:
    """The same with a shift of the first convolutions, of whole blocks, or with pooled frames."""
    state = {}
    for name, tensor in plain(code_base).items():
        if where == "block":
            name = re.sub(r"(layer\d\.\d)\.", r"\1.net.", name)
        elif re.search(rf"{blocks}\.conv1\.(conv\.)?weight$", name):
            name = name.removesuffix("weight") + "net.weight"
        if where == "pool":
            name = name.replace("layer2.", "layer2.net.")
        state[name] = tensor
    return state


@pytest.mark.parametrize("code_base", CODE_BASES)
def test_a_shift_of_first_convolutions_is_loaded(code_base, save):
    report = load_weights(build_model("tsm_r50", **TINY), save({"state_dict": shifted(code_base)}))
    assert (report.layout, report.skipped, report.missing) == (code_base, (), ())


@pytest.mark.parametrize("code_base", CODE_BASES)
@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("none", "without temporal shift"),
        ("block", "shifts the input of whole blocks"),
        ("pool", "pools over time"),
        ("some", "in 2 blocks, and this network has it in 5"),
    ],
)
def test_another_shift_is_refused(code_base, where, message, save):
    if where == "none":
        state = plain(code_base)
    elif where == "some":
        state = shifted(code_base, blocks=r"layer2\.\d")
    else:
        state = shifted(code_base, where)
    model = build_model("tsm_r50", **TINY)
    before = model.fc.weight.clone()
    with pytest.raises(ModelError, match=message):
        load_weights(model, save({"state_dict": state}))
    assert torch.equal(model.fc.weight, before)


@pytest.mark.parametrize("code_base", CODE_BASES)
def test_a_tsm_is_refused_by_a_network_without_shift(code_base, save):
    with pytest.raises(ModelError, match="build tsm_r50"):
        load_weights(build_model("i3d_r50", **TINY), save({"state_dict": shifted(code_base)}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e50.pth", None),
        ("TSM_kinetics_RGB_resnet50_shift4_blockres_avg_segment8_e50.pth", "shift_div 4"),
        ("TSM_kinetics_RGB_resnet50_shift8_block_avg_segment8_e50.pth", "whole blocks"),
        ("TSM_kinetics_RGB_resnet50_shift8_blockres_tpool_avg_segment8.pth", "pools over time"),
    ],
)
def test_names_of_the_tsm_release_tell_the_shift(name, message, save):
    """They are all that tells how many channels are shifted."""
    path, model = save({"state_dict": shifted("TSM release")}, name), build_model("tsm_r50", **TINY)
    if message is None:
        assert load_weights(model, path).missing == ()
        return
    with pytest.raises(ModelError, match=message):
        load_weights(model, path)


@pytest.mark.parametrize("key", ["cfg", "config"])  # of mmaction2 1.x, and of 0.x
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("backbone=dict(type='ResNetTSM', shift_div=8)", None),
        ("backbone=dict(type='ResNetTSM', shift_div=4)", "shift_div 4"),
        ("backbone=dict(type='ResNetTSM', shift_place='block')", "whole blocks"),
        ("mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_bgr=False", None),
        ("mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_bgr=True", "blue"),
        ("mean=[128, 128, 128],\n    std=[128, 128, 128]", r"mean \[128, 128, 128\]"),
    ],
)
def test_the_configuration_of_mmaction2_is_read(key, text, message, save):
    content = {"meta": {key: f"model = dict({text})"}, "state_dict": shifted("mmaction2")}
    model = build_model("tsm_r50", **TINY)
    if message is None:
        assert load_weights(model, save(content)).missing == ()
        return
    with pytest.raises(ModelError, match=message):
        load_weights(model, save(content))
