"""Loading weights: each layout against an independently written network, and each refusal."""

from __future__ import annotations

import os
import re
import zipfile

import pytest
import torch
from benches.released_network import normalise
from torch import Tensor, nn

import dsanet
from dsanet import ModelError, build_model, load_weights

SMALL = {"num_classes": 5, "width": 16, "dropout": 0.0}


class ImageBlock(nn.Module):
    """A residual block of an image ResNet, in torchvision's names."""

    def __init__(self, inputs: int, planes: int, stride: int, depth: int) -> None:
        super().__init__()
        outputs = planes if depth == 18 else planes * 4
        shapes = [(inputs, planes, 3, stride), (planes, planes, 3, 1)]
        if depth == 50:
            shapes = [(inputs, planes, 1, 1), (planes, planes, 3, stride), (planes, outputs, 1, 1)]
        self.count = len(shapes)
        for i, (a, b, k, s) in enumerate(shapes, start=1):
            self.add_module(f"conv{i}", nn.Conv2d(a, b, k, s, k // 2, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(b))
        self.downsample = None
        if stride > 1 or inputs != outputs:
            side = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(side, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        side = x if self.downsample is None else self.downsample(x)
        for i in range(1, self.count + 1):
            x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))
            x = x.relu() if i < self.count else x
        return (x + side).relu()


class ImageResNet(nn.Module):
    """An image ResNet of width 16 with 1,000 classes, in torchvision's names."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 16
        for stage, count in enumerate((2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3)):
            planes, blocks = 16 * 2**stage, []
            for i in range(count):
                stride = 2 if i == 0 and stage else 1
                blocks.append(ImageBlock(inputs, planes, stride, depth))
                inputs = planes if depth == 18 else planes * 4
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
        return x.mean((2, 3))


def randomise_statistics(net: nn.Module) -> nn.Module:
    """Give batch norms weights and running statistics unlike their initial ones."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


@pytest.mark.parametrize("name", ["i3d_r18", "i3d_r50", "tsm_r50", "dsa_i3d_r50", "v4d_i3d_r18"])
def test_imagenet_is_inflated(name, save):
    """A still video has, in every interior frame, the features of the image network.

    Zero padding drops taps of inflated kernels at the first and last frames, so the middle of a
    clip longer than the receptive field is compared.
    """
    image = randomise_statistics(ImageResNet(int(name[-2:])))
    model = build_model(name, **SMALL).eval()
    report = load_weights(model, save(image.state_dict()))
    assert report.layout == "torchvision ImageNet"
    assert sorted(report.skipped) == ["imagenet.bias", "imagenet.weight"]
    inflated = {"i3d_r18": 8, "i3d_r50": 9, "tsm_r50": 0, "dsa_i3d_r50": 9, "v4d_i3d_r18": 8}
    assert len(report.inflated) == inflated[name]
    missing = {n.split(".mixer.")[0] for n in report.missing if ".mixer." in n}
    assert bool(missing) == name.startswith(("dsa", "v4d"))
    assert {n for n in report.missing if ".mixer." not in n} == {"fc.weight", "fc.bias"}
    if name == "tsm_r50" or name.startswith("dsa"):
        return  # shift and DSA change a still video; the kernels are compared below
    frame = torch.randint(0, 256, (1, 1, 1, 32, 32, 3), dtype=torch.uint8)
    maps = []
    model.trunk.register_forward_hook(lambda _m, _i, out: maps.append(out))
    snippets = model.segments or 1
    with torch.no_grad():
        model(frame.repeat(1, snippets, 21, 1, 1, 1))
        expected = image(normalise(frame)[0, 0].transpose(0, 1))
    middle = maps[0].unflatten(0, (snippets, 21))[0, 10].mean((1, 2))
    torch.testing.assert_close(middle, expected[0], rtol=1e-4, atol=1e-4)


def test_inflated_kernels_sum_to_the_image_kernel(save):
    image = ImageResNet(50)
    model = build_model("dsa_i3d_r50", **SMALL)
    load_weights(model, save(image.state_dict()))
    ours = model.trunk.layer3[1].conv1.weight  # (O, I, 3, 1)
    theirs = image.layer3[1].conv1.weight
    torch.testing.assert_close(ours.sum(2, keepdim=True), theirs)
    torch.testing.assert_close(ours[:, :, 0], ours[:, :, 2])
    torch.testing.assert_close(model.trunk.layer1[0].conv2.weight, image.layer1[0].conv2.weight)


@pytest.mark.parametrize("name", ["dsa_i3d_r50", "dsa_i3d_r18", "tsn_i3d_r50", "dsa_tsm_r50"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_release_layout(name, prefix, reference, save, clips):
    net = reference(name, width=16).float().eval()
    assert "backbone.layer2.1.block.conv1.weight" in net.state_dict() or "dsa" not in name
    state = {prefix + n: t for n, t in net.state_dict().items()}
    if "tsm" in name:  # the release wraps a first convolution in its shift
        state = {
            re.sub(r"(layer.*conv1)\.weight", r"\1.net.weight", n): t for n, t in state.items()
        }
    model = build_model(name, **SMALL).eval()
    report = load_weights(model, save({"meta": {"epoch": 100}, "state_dict": state}))
    assert report.layout == "DSANet release"
    assert (report.skipped, report.missing, report.inflated) == ((), (), ())
    x = clips()
    with torch.no_grad():
        torch.testing.assert_close(model(x), net(normalise(x)), rtol=1e-3, atol=1e-4)


def mmaction(name: str, flat: bool) -> str:
    """A plain network's tensor name as mmaction2 writes it (ConvModule: conv and bn inside)."""
    parts = name.split(".")
    if parts[0] == "cls_head":
        return name
    if "downsample" in parts:
        kind = "conv" if parts[-2] == "0" else "bn"
        return ".".join([*parts[:-2], kind, parts[-1]])
    layer, tensor = parts[-2], parts[-1]
    kind = "conv" if layer.startswith("conv") else "bn"
    shifted = flat and layer == "conv1" and len(parts) > 4
    inner = ["net"] if shifted else []
    return ".".join([*parts[:-2], f"conv{layer[-1]}", kind, *inner, tensor])


@pytest.mark.parametrize("name", ["i3d_r50", "tsm_r50"])
def test_mmaction2_layout(name, reference, save, clips):
    """SlowOnly has 5-D kernels; TSM has 4-D ones and a wrapper ``net`` around shifted convs."""
    flat = name == "tsm_r50"
    net = reference(name, width=16).float().eval()
    state = {
        mmaction(n, flat): t.squeeze(2) if flat and t.ndim == 5 else t
        for n, t in net.state_dict().items()
    }
    assert "backbone.conv1.conv.weight" in state
    assert ("backbone.layer1.0.conv1.conv.net.weight" in state) == flat
    assert "backbone.layer1.0.downsample.bn.running_mean" in state
    state["data_preprocessor.mean"] = torch.zeros(3, 1, 1)
    model = build_model(name, **SMALL).eval()
    report = load_weights(model, save({"state_dict": state}))
    assert (report.layout, report.missing) == ("mmaction2", ())
    assert report.skipped == ("data_preprocessor.mean",)
    x = clips()
    with torch.no_grad():
        torch.testing.assert_close(model(x), net(normalise(x)), rtol=1e-3, atol=1e-4)


def test_tsm_release_layout(reference, save, clips):
    net = reference("tsm_r50", width=16).float().eval()
    state = {}
    for n, t in net.state_dict().items():
        n = n.replace("backbone.", "module.base_model.").replace("cls_head.fc_cls", "module.new_fc")
        n = n.replace("conv1.weight", "conv1.net.weight") if ".layer" in n else n
        state[n] = t.squeeze(2) if t.ndim == 5 else t
    model = build_model("tsm_r50", **SMALL).eval()
    assert load_weights(model, save({"state_dict": state})).layout == "TSM release"
    x = clips()
    with torch.no_grad():
        torch.testing.assert_close(model(x), net(normalise(x)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", dsanet.list_models())
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "step": 3}])
def test_own_layout(name, wrap, save, clips):
    theirs = randomise_statistics(build_model(name, **SMALL))
    state = {f"_orig_mod.{n}": t for n, t in theirs.state_dict().items()}
    ours = build_model(name, **SMALL).eval()
    report = load_weights(ours, save(wrap(state)))
    assert (report.layout, report.missing, report.skipped) == ("dsanet", (), ())
    x = clips(T=2)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


def test_memory_layout_is_kept(save):
    model = build_model("i3d_r18", **SMALL)
    load_weights(model, save(ImageResNet(18).state_dict()))
    weight = model.trunk.layer3[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_dsa_is_fine_tuned_from_a_tsn_network(save):
    """The trunk is loaded, DSA keeps its initialisation, and the report says so."""
    plain, model = build_model("tsn_i3d_r18", **SMALL), build_model("dsa_i3d_r18", **SMALL)
    before = model.trunk.layer2[1].mixer.generate[0].weight.clone()
    report = load_weights(model, save(plain.state_dict()))
    assert all(".mixer." in n for n in report.missing)
    assert len(report.missing) == 12
    torch.testing.assert_close(model.trunk.layer2[1].mixer.generate[0].weight, before)
    assert "left at their initialisation" in str(report)


def test_classifier_of_another_data_set_is_skipped(save):
    model = build_model("i3d_r18", **SMALL)
    before = model.fc.weight.clone()
    report = load_weights(
        model, save(build_model("i3d_r18", **SMALL | {"num_classes": 9}).state_dict())
    )
    assert report.skipped == report.missing == ("fc.weight", "fc.bias")
    torch.testing.assert_close(model.fc.weight, before)
    assert "skipped from the file: fc.weight, fc.bias" in str(report)


def damaged(state: dict[str, Tensor], change: str) -> dict[str, Tensor]:
    state = dict(state)
    if change == "less":
        del state["trunk.layer3.0.conv2.weight"]
    elif change == "more":
        state["trunk.layer9.conv1.weight"] = torch.zeros(1)
    elif change == "shape":
        state["trunk.bn1.weight"] = torch.zeros(17)
    elif change == "half a mixer":
        del state["trunk.layer2.1.mixer.generate.0.weight"]
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("less", r"lacks trunk\.layer3\.0\.conv2\.weight"),
        ("more", r"it has trunk\.layer9\.conv1\.weight"),
        ("shape", r"bn1\.weight has shape \(17,\), this network's has \(16,\)"),
        ("half a mixer", r"lacks trunk\.layer2\.1\.mixer\.generate\.0\.weight"),
    ],
)
def test_a_mismatch_changes_nothing(change, message, save):
    source, model = build_model("dsa_i3d_r18", **SMALL), build_model("dsa_i3d_r18", **SMALL)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(ModelError, match=message):
        load_weights(model, save(damaged(source.state_dict(), change)))
    for n, t in model.state_dict().items():
        torch.testing.assert_close(t, before[n], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("i3d_r50", "i3d_r18"),
        ("i3d_r18", "i3d_r50"),
        ("dsa_i3d_r18", "tsn_i3d_r18"),
        ("tsm_r50", "i3d_r50"),
        ("i3d_r50", "tsm_r50"),
        ("se_i3d_r18", "dsa_i3d_r18"),
        ("v4d_i3d_r18", "dsa_i3d_r18"),
    ],
)
def test_another_architecture_is_refused(source, target, save):
    path = save(build_model(source, **SMALL).state_dict())
    with pytest.raises(ModelError, match="another architecture") as caught:
        load_weights(build_model(target, **SMALL), path)
    assert str(path) in str(caught.value)


def test_video_kernels_are_not_inflated(reference, save):
    """A release checkpoint without temporal taps is refused; only image networks are inflated."""
    net = reference("i3d_r50", width=16)
    state = {n: t[:, :, :1] if t.ndim == 5 else t for n, t in net.state_dict().items()}
    with pytest.raises(ModelError, match=r"layer3\.0\.conv1"):
        load_weights(build_model("i3d_r50", **SMALL), save({"state_dict": state}))


class Harmful:
    def __init__(self, function):
        self.function = function

    def __reduce__(self):
        return (self.function, ("echo executed",))


def test_files_without_weights_are_refused(tmp_path, save, capfd):
    model = build_model("i3d_r18", **SMALL)
    (tmp_path / "text.pth").write_text("not weights")
    (tmp_path / "empty.pth").touch()
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("a", "b")
    whole = save(model.state_dict(), "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "folder.pth").mkdir()
    paths = {
        tmp_path / "none.pth": "no such weights file",
        tmp_path / "text.pth": "text.pth",
        tmp_path / "empty.pth": "empty.pth",
        tmp_path / "zip.pth": "zip.pth",
        tmp_path / "cut.pth": "cut.pth",
        tmp_path / "folder.pth": "folder.pth",
        save({"state_dict": Harmful(print)}, "code.pth"): "no state_dict",
        save({"state_dict": Harmful(os.system)}, "system.pth"): "more than tensors",
        save([1, 2], "list.pth"): "no state_dict",
        save({}, "nothing.pth"): "no state_dict",
        save({"a": torch.zeros(1)}, "other.pth"): "unknown layout",
    }
    for path, message in paths.items():
        with pytest.raises(ModelError, match=message) as caught:
            load_weights(model, path)
        assert "\n" not in str(caught.value)
    assert "executed" not in capfd.readouterr().out
