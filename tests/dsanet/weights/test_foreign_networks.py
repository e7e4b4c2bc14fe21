"""Weights of other code bases give their logits: against plain functions and their own networks."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from dsanet import ModelError, build_model, load_weights
from tests.dsanet.weights import slow

MEAN, STD = (114.75,) * 3, (57.375,) * 3  # 0.45 and 0.225 of PySlowFast and pytorchvideo
SMALL = {"num_classes": slow.CLASSES, "width": slow.WIDTH, "blocks": slow.BLOCKS, "dropout": 0.0}
CODE_BASES = {"PySlowFast": slow.PYSLOWFAST, "pytorchvideo": slow.PYTORCHVIDEO}
CONFIG = """DATA:
  MEAN: [0.45, 0.45, 0.45]
  STD:
  - 0.225
  - 0.225
  - 0.225
RESNET:
  STRIDE_1X1: false
"""


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def as_theirs(clips: Tensor, mean: float = 0.45, std: float = 0.225) -> Tensor:
    """Bytes (1, 1, T, H, W, 3) as the normalised (1, 3, T, H, W) of other code bases."""
    return ((clips[0].double() / 255 - mean) / std).permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize("code_base", CODE_BASES)
@pytest.mark.parametrize("config", [{}, {"cfg": CONFIG}])
def test_slow_of_pyslowfast_and_pytorchvideo(code_base, config, save, clips):
    names = CODE_BASES[code_base]
    state = slow.random_state(names)
    path = save({"epoch": 196, "model_state": state, "optimizer_state": {}, **config}, "SLOW.pyth")
    model = build_model("i3d_r50", mean=MEAN, std=STD, **SMALL).double().eval()
    report = load_weights(model, path)
    assert (report.layout, report.skipped, report.missing) == (code_base, (), ())
    x = clips(B=1, U=1, T=5)
    with torch.no_grad():
        assert relative_error(model(x), slow.logits(state, names, as_theirs(x))) < 1e-5


@pytest.mark.parametrize("code_base", CODE_BASES)
def test_another_normalisation_is_refused(code_base, save):
    """Without its own mean and std a network gives other logits; the message has the settings."""
    path = save({"model_state": slow.random_state(CODE_BASES[code_base])})
    with pytest.raises(ModelError, match=r"--network\.mean '\[114\.75, 114\.75, 114\.75\]'"):
        load_weights(build_model("i3d_r50", **SMALL), path)


def test_the_normalisation_that_a_configuration_states_is_required(save):
    config = CONFIG.replace("0.45", "0.5")
    path = save({"model_state": slow.random_state(slow.PYSLOWFAST), "cfg": config})
    with pytest.raises(ModelError, match=r"normalises frames with mean \[127\.5, 127\.5, 127\.5\]"):
        load_weights(build_model("i3d_r50", mean=MEAN, std=STD, **SMALL), path)
    load_weights(build_model("i3d_r50", mean=(127.5,) * 3, std=STD, **SMALL), path)


@pytest.mark.parametrize(
    ("setting", "message"),
    [("STRIDE_1X1: True", "strides in the 1x1"), ("REVERSE_INPUT_CHANNEL: true", "blue, green")],
)
def test_what_tensors_do_not_show_is_read_from_the_configuration(setting, message, save):
    content = {"model_state": slow.random_state(slow.PYSLOWFAST), "cfg": f"DATA:\n  {setting}\n"}
    with pytest.raises(ModelError, match=message):
        load_weights(build_model("i3d_r50", mean=MEAN, std=STD, **SMALL), save(content))


@pytest.mark.parametrize("code_base", CODE_BASES)
def test_a_c2d_network_is_no_tsm(code_base, save):
    """C2D has the shapes of TSM's tensors, but nothing is shifted."""
    path = save({"model_state": slow.random_state(CODE_BASES[code_base], taps=1)})
    with pytest.raises(ModelError, match="without temporal shift"):
        load_weights(build_model("tsm_r50", mean=MEAN, std=STD, **SMALL), path)


def test_slowfast_is_refused(save):
    state = slow.random_state(slow.PYSLOWFAST)
    state["s1.pathway1_stem.conv.weight"] = torch.zeros(2, 3, 5, 7, 7)
    with pytest.raises(ModelError, match=r"it has s1\.pathway1_stem\.conv\.weight"):
        load_weights(build_model("i3d_r50", mean=MEAN, std=STD, **SMALL), save(state))


def randomise(net: nn.Module) -> nn.Module:
    """Statistics and classifier unlike the initial ones, in eval mode."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


@pytest.mark.filterwarnings("ignore")
def test_pytorchvideos_own_slow_r50(save, clips):
    """The package itself, at its depth and width; its head pools 8 frames of 7 x 7."""
    models = pytest.importorskip("pytorchvideo.models.hub.resnet")
    theirs = randomise(models.slow_r50()).double()
    model = build_model("i3d_r50", num_classes=400, dropout=0.0, mean=MEAN, std=STD)
    path = save({"model_state": theirs.float().state_dict()}, "SLOW_8x8_R50.pyth")
    report = load_weights(model, path)
    assert (report.skipped, report.missing) == ((), ())
    x = clips(B=1, U=1, T=8, size=224)
    with torch.no_grad():
        expected = theirs.double()(as_theirs(x))
        assert relative_error(model.double().eval()(x), expected) < 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("depth", [18, 50])
def test_timms_own_resnets(depth, save, clips):
    """A clip of one frame has the features of timm's network, where kernels see no other frame."""
    timm = pytest.importorskip("timm")
    theirs = randomise(timm.create_model(f"resnet{depth}", pretrained=False))
    model = build_model("tsm_r50" if depth == 50 else "i3d_r18", num_classes=5, dropout=0.0)
    report = load_weights(model, save(theirs.state_dict(), f"resnet{depth}_a1_0-14fe96d1.pth"))
    assert report.layout == "torchvision ImageNet"
    assert len(report.loaded) == len(theirs.state_dict()) - 2
    x = clips(B=1, U=1, T=1, size=64)
    if depth == 18:  # a still video, in its middle frame
        x = x.repeat(1, 1, 21, 1, 1, 1)
    maps: list[Tensor] = []
    model.trunk.register_forward_hook(lambda _m, _i, out: maps.append(out))
    if depth == 50:  # one frame: the shift brings zeros, so the plain convolutions are compared
        for module in model.modules():
            if re.fullmatch("ShiftConv", type(module).__name__):
                module.forward = lambda x, frames, conv=module: nn.Conv2d.forward(conv, x)
    mean, std = theirs.default_cfg["mean"], theirs.default_cfg["std"]
    pixels = (x[0, 0, :1].double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    with torch.no_grad():
        model.double().eval()(x)
        expected = theirs.double().forward_features(pixels.permute(0, 3, 1, 2))
    middle = maps[0][len(maps[0]) // 2][None]
    assert relative_error(middle, expected) < 1e-5
