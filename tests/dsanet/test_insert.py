"""Inserting DSA into networks of other code bases."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from dsanet import DSA, ModelError, insert_dsa

B, U, T = 2, 4, 4


class Factored(nn.Sequential):
    """(2+1)-D convolution, a Sequential with a forward of its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv3d(inputs, outputs, (1, 3, 3), padding=(0, 1, 1)),
            nn.ReLU(),
            nn.Conv3d(outputs, outputs, (3, 1, 1), padding=(1, 0, 0)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self[2](self[1](self[0](x)))


class FactoredBlock(nn.Module):
    """A residual block whose conv1 is a plain Sequential."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        norm = nn.BatchNorm3d(channels)
        self.conv1 = nn.Sequential(Factored(channels, channels), norm, nn.ReLU())
        self.conv2 = Factored(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.conv2(self.conv1(x))).relu()


class FactoredNet(nn.Module):
    """5-D maps (B*U, C, T, H, W), with temporal pooling: T changes on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 16, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.layer1 = nn.Sequential(FactoredBlock(16), FactoredBlock(16))
        self.pool = nn.MaxPool3d(2)
        self.layer2 = nn.Sequential(FactoredBlock(16), FactoredBlock(16))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.pool(self.layer1(self.stem(x))))
        return self.fc(x.mean((2, 3, 4))).view(-1, U, 5).mean(1)


class Inverted(nn.Module):
    """A mobile inverted bottleneck over frames, its layers in an indexed Sequential."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = channels * 2
        self.layers = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.Hardswish(),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.Hardswish(),
            nn.Conv2d(wide, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class MobileNet(nn.Module):
    """Folded 4-D maps (B*U*T, C, H, W): frames through a 2-D network, averaged at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.blocks = nn.ModuleList(Inverted(16) for _ in range(3))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean((2, 3))).view(-1, U * T, 5).mean(1)


def other_network(kind: str) -> tuple[nn.Module, Tensor, dict]:
    """A network, its input, and where DSA goes."""
    if kind == "factored":
        where = ["layer1.0.conv1", "layer2.*.conv2"]
        return FactoredNet(), torch.randn(B * U, 3, T, 16, 16), {"where": where, "beta": 0.5}
    where = {"where": "blocks.*.layers.2", "frames": T, "beta": 0.25}
    return MobileNet(), torch.randn(B * U * T, 3, 16, 16), where


KINDS = pytest.mark.parametrize("kind", ["factored", "mobile"])
NAMES = {
    "factored": ["layer1.0.conv1", "layer2.0.conv2", "layer2.1.conv2"],
    "mobile": ["blocks.0.layers.2", "blocks.1.layers.2", "blocks.2.layers.2"],
}


@KINDS
def test_outputs_are_mixed(kind):
    """The output of a named module is DSA of its former output."""
    plain, x, where = other_network(kind)
    model = copy.deepcopy(plain).eval()
    assert insert_dsa(model, segments=U, **where) == NAMES[kind]
    name = NAMES[kind][0]
    before, after = [], []
    plain.eval().get_submodule(name).register_forward_hook(lambda _m, _i, out: before.append(out))
    model.get_submodule(name).register_forward_hook(lambda _m, _i, out: after.append(out))
    plain(x), model(x)
    dsa = model.get_submodule(name).dsa
    assert isinstance(dsa, DSA)
    torch.testing.assert_close(after[0], dsa(before[0]))
    assert not torch.allclose(after[0], before[0])


@KINDS
def test_the_order_of_snippets_matters(kind):
    plain, x, where = other_network(kind)
    model = copy.deepcopy(plain)
    insert_dsa(model, segments=U, **where)
    order = x.view(B, U, -1)[:, [2, 0, 3, 1]].reshape(x.shape)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(order), plain(x))
        assert not torch.allclose(model.eval()(order), model(x), atol=1e-5)


@KINDS
def test_names_of_the_network_are_kept(kind):
    plain, x, where = other_network(kind)
    model = copy.deepcopy(plain)
    insert_dsa(model, segments=U, **where)
    added = set(model.state_dict()) - set(plain.state_dict())
    assert set(plain.state_dict()) <= set(model.state_dict())
    assert {n.partition(".dsa.")[0] for n in added} == set(NAMES[kind])
    missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    # torch itself fills in a missing count of batches.
    assert set(missing) == {n for n in added if not n.endswith("num_batches_tracked")}
    assert unexpected == []
    twin, _, _ = other_network(kind)
    insert_dsa(twin, segments=U, **where)
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin.eval()(x), model.eval()(x))


@KINDS
def test_trains_and_copies(kind):
    model, x, where = other_network(kind)
    insert_dsa(model, segments=U, **where)
    model(x).square().sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if ".dsa." in n}
    assert len(gradients) == 4 * 3
    assert all(g is not None and g.isfinite().all() for g in gradients.values())
    assert any(g.abs().max() > 0 for g in gradients.values())
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    model.eval()
    for twin in (copy.deepcopy(model), torch.load(stream, weights_only=False).eval()):
        torch.testing.assert_close(twin(x), model(x))
        nn.init.ones_(twin.get_submodule(NAMES[kind][0]).dsa.generate[0].weight)
        assert not torch.equal(twin(x), model(x)), "the copy still runs the original's DSA"


@KINDS
def test_compiles_to_one_graph(kind):
    torch._dynamo.reset()
    model, x, where = other_network(kind)
    insert_dsa(model, segments=U, **where)
    eager = copy.deepcopy(model)
    run = torch.compile(model, fullgraph=True, backend="aot_eager")
    out, expected = run(x), eager(x)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(out, expected)
    for a, b in zip(model.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4)
    torch._dynamo.reset()


@KINDS
def test_under_ddp(kind, tmp_path):
    model, x, where = other_network(kind)
    insert_dsa(model, segments=U, **where)
    reference = copy.deepcopy(model)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        wrapped(x).square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    reference(x).square().sum().backward()
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("kind", ["factored", "mobile"])
def test_layout_and_precision_are_the_networks(kind):
    model, x, where = other_network(kind)
    layout = torch.channels_last_3d if x.ndim == 5 else torch.channels_last
    model = model.to(memory_format=layout, dtype=torch.float64)
    insert_dsa(model, segments=U, **where)
    dsa = model.get_submodule(NAMES[kind][0]).dsa
    assert dsa.generate[0].weight.dtype == torch.float64
    strides = []
    dsa.register_forward_hook(lambda _m, i, out: strides.append((i[0].stride(), out.stride())))
    model(x.double().contiguous(memory_format=layout))
    assert strides[0][0] == strides[0][1]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("layer9", "no sub-module is named 'layer9'"),
        ("layer1.0.conv3", "did you mean .*layer1.0.conv"),
        (["layer1.0", "nope.*"], "nope"),
    ],
)
def test_unknown_names_are_refused(where, message):
    model = FactoredNet()
    with pytest.raises(ModelError, match=message):
        insert_dsa(model, where)
    assert not any(isinstance(m, DSA) for m in model.modules())


def test_containers_and_second_insertions_are_refused():
    model = MobileNet()
    with pytest.raises(ModelError, match="blocks is a list"):
        insert_dsa(model, "blocks")
    insert_dsa(model, "stem")
    with pytest.raises(ModelError, match="stem already has a sub-module 'dsa'"):
        insert_dsa(model, "stem")


def test_a_star_matches_one_part_of_a_name():
    model = FactoredNet()
    assert insert_dsa(model, "layer*.0") == ["layer1.0", "layer2.0"]


def test_a_wrong_number_of_frames_is_refused():
    model, x, _ = other_network("mobile")
    insert_dsa(model, "stem", segments=3, frames=5)
    with pytest.raises(ModelError, match="3 snippets x 5 frames"):
        model(x)


@pytest.mark.parametrize(
    ("where", "message"), [("fc", "4-D or 5-D maps"), ("rnn", "output of LSTM is not a tensor")]
)
def test_outputs_other_than_maps_are_refused(where, message):
    model = nn.ModuleDict({"fc": nn.Linear(3, 5), "rnn": nn.LSTM(3, 5)})
    insert_dsa(model, where)
    with pytest.raises(ModelError, match=message):
        model[where](torch.randn(8, 3))
