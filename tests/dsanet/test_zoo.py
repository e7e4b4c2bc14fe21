"""Networks by name: parameters, placement, dependence on the order of snippets, errors."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

import dsanet
from dsanet import DSA, ModelError, build_model
from dsanet.convs import SE, V4DBlock

ORDERS = ([0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 2, 3], [2, 0, 3, 1])
SMALL = {"num_classes": 5, "width": 16, "dropout": 0.0}


def parameters(name: str, num_classes: int, **options) -> int:
    with torch.device("meta"):
        model = build_model(name, num_classes=num_classes, **options)
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        ("i3d_r18", 200, 31_922_952),
        ("i3d_r18", 400, 32_025_552),
        ("tsn_i3d_r18", 200, 31_922_952),
        ("dsa_i3d_r18", 200, 31_923_096),
        ("i3d_r50", 400, 32_454_096),
        ("dsa_i3d_r50", 400, 32_454_456),
        ("tsm_r50", 400, 24_327_632),
        ("tsm_r50", 174, 23_864_558),
        ("dsa_tsm_r50", 174, 23_864_918),
    ],
)
def test_parameter_counts(name, classes, count):
    assert parameters(name, classes) == count


def test_inflated_shortcuts_come_near_the_papers_32_3_m():
    assert parameters("i3d_r18", 200, inflate_shortcuts=True) == 32_250_632


def test_v4d_adds_0_8_m_to_r18():
    added = parameters("v4d_i3d_r18", 200) - parameters("i3d_r18", 200)
    assert added == 9 * (128**2 + 256**2) + 2 * (128 + 256)


def modules_of(name: str, kind: type, **options) -> list[str]:
    with torch.device("meta"):
        model = build_model(name, num_classes=5, **options)
    return [n for n, m in model.named_modules() if isinstance(m, kind)]


@pytest.mark.parametrize(
    ("stages", "count"), [((5,), 1), ((4, 5), 4), ((3, 4), 5), ((2, 3), 3), ((2,), 1)]
)
def test_number_of_dsa_blocks_of_table_2f(stages, count):
    assert len(modules_of("dsa_i3d_r50", DSA, stages=stages)) == count


def test_default_placement():
    """Blocks 2 and 4 of res3, 2, 4 and 6 of res4, as the released configuration has it."""
    blocks = ["layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5"]
    expected = [f"trunk.{b}.mixer" for b in blocks]
    assert modules_of("dsa_i3d_r50", DSA) == expected
    assert modules_of("dsa_tsm_r50", DSA) == expected
    assert modules_of("se_i3d_r50", SE) == expected
    assert modules_of("dsa_i3d_r18", DSA) == ["trunk.layer2.1.mixer", "trunk.layer3.1.mixer"]
    assert modules_of("v4d_i3d_r50", V4DBlock) == ["trunk.layer2.1.mixer", "trunk.layer3.2.mixer"]


@pytest.mark.parametrize("name", dsanet.list_models())
def test_logits_and_snippets(name, clips):
    model = build_model(name, segments=3, **SMALL)
    out = model(clips(U=3))
    assert (out.shape, out.dtype) == ((2, 5), torch.float32)
    mixes = name.startswith(("dsa", "v4d"))
    assert model.segments == (3 if mixes else None)
    assert model.train_segments == (1 if name.startswith(("i3d", "tsm")) else 3)
    if mixes:
        with pytest.raises(ModelError, match=r"mixes 3 snippets.*got 4"):
            model(clips(U=4))
    else:
        assert model(clips(U=7)).shape == (2, 5)


@pytest.mark.parametrize("name", dsanet.list_models())
def test_order_of_snippets(name, clips):
    """Networks that average snippets ignore their order; DSA and V4D do not."""
    model = build_model(name, **SMALL).eval().double()
    nn.init.normal_(model.fc.weight)
    for module in model.modules():  # a V4D block starts as the identity
        if isinstance(module, V4DBlock):
            nn.init.ones_(module.bn.weight)
    x = clips(B=1)
    with torch.no_grad():
        scores = torch.cat([model(x[:, order]) for order in ORDERS])
    spread = (scores - scores[0]).abs().max() / scores.abs().max()
    assert spread > 1e-4 if name.startswith(("dsa", "v4d")) else spread < 1e-6


def test_videos_of_a_batch_are_independent(clips):
    """In eval mode the logits of a video do not depend on the others of its batch."""
    for name in ("dsa_tsm_r50", "v4d_i3d_r18", "dsa_i3d_r50"):
        model = build_model(name, **SMALL).eval()
        x = clips(B=3)
        with torch.no_grad():
            one_by_one = torch.cat([model(video[None]) for video in x])
            torch.testing.assert_close(model(x), one_by_one, rtol=1e-4, atol=1e-6)


def test_shift_stays_inside_a_snippet(clips):
    """The logits of tsm_* are the mean over snippets that are passed one by one."""
    model = build_model("tsm_r50", **SMALL).eval()
    x = clips(B=1)
    with torch.no_grad():
        each = torch.stack([model(x[:, u : u + 1]) for u in range(4)]).mean(0)
        torch.testing.assert_close(model(x), each, rtol=1e-4, atol=1e-6)


def test_v4d_starts_as_the_identity(clips):
    v4d, plain = build_model("v4d_i3d_r18", **SMALL), build_model("i3d_r18", **SMALL)
    v4d.load_state_dict(plain.state_dict(), strict=False)
    x = clips()
    torch.testing.assert_close(v4d(x), plain(x))


def test_dropout_draws_a_mask_per_snippet():
    model = build_model("tsn_i3d_r18", **(SMALL | {"dropout": 0.5}))
    nn.init.ones_(model.fc.weight)
    masks = []
    model.dropout.register_forward_hook(lambda _m, _i, out: masks.append(out))
    snippet = torch.randint(0, 256, (1, 1, 2, 32, 32, 3), dtype=torch.uint8)
    model(snippet.repeat(1, 4, 1, 1, 1, 1))
    zeros = (masks[0] == 0)[0]
    assert not torch.equal(zeros[0], zeros[1])
    assert 0.2 < zeros.float().mean() < 0.8


def test_initialisation():
    model = build_model("dsa_i3d_r18", num_classes=1000)
    assert abs(model.fc.weight.std().item() - 0.01) < 1e-3
    assert model.fc.bias.abs().max() == 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dsa_i3d_r5", {}, "did you mean 'dsa_i3d_r50'"),
        ("nonsense", {}, "known: i3d_r18"),
        ("dsa_i3d_r18", {"aplha": 2}, "did you mean 'alpha'"),
        ("tsn_i3d_r18", {"alpha": 4}, "tsn_i3d_r18 has no option alpha .got 4."),
        ("v4d_i3d_r18", {"beta": 0.5}, "v4d_i3d_r18 has no option beta"),
        ("tsm_r50", {"inflate_shortcuts": True}, "tsm_r50 has no option inflate_shortcuts"),
        ("dsa_i3d_r18", {"position": "IV"}, "I, II, III"),
        ("dsa_i3d_r18", {"position": "V"}, "position must be one of I, II, III, IV, got 'V'"),
        ("dsa_i3d_r18", {"position": "end"}, "position must .*, got 'end'"),
        ("dsa_i3d_r18", {"stages": (1,)}, "stages must be some of 2, 3, 4, 5"),
        ("dsa_i3d_r18", {"stages": ()}, "stages must be some of 2, 3, 4, 5"),
        ("dsa_i3d_r18", {"every": 3}, "every must leave at least one block"),
        ("dsa_i3d_r18", {"width": 12}, "multiple of 8"),
        ("dsa_i3d_r18", {"width": 8, "stages": (2,)}, "beta must select at least 2 of"),
        ("dsa_i3d_r18", {"dropout": 1.0}, "dropout must be in .0, 1., got 1.0"),
        ("dsa_i3d_r18", {"blocks": (1, 1)}, "four numbers"),
        ("dsa_i3d_r18", {"blocks": (1, 1, 1, 10**9)}, "blocks must be at most 200 each"),
        ("dsa_i3d_r18", {"blocks": ("1", 1, 1, 1)}, "blocks must hold values of type int"),
        ("dsa_i3d_r18", {"stages": (3.0, 4.0)}, "stages must hold values of type int"),
        ("dsa_i3d_r18", {"width": 2**40}, "width must be at most 2048, got 1099511627776"),
        ("dsa_i3d_r18", {"alpha": 10**9}, "alpha must be at most 1024"),
        ("dsa_i3d_r18", {"segments": 10**9}, "segments must be at most 4096"),
        ("dsa_i3d_r18", {"segments": 2.0}, "segments must be of type int, got 2.0"),
        ("i3d_r18", {"num_classes": 10**9}, "num_classes must be at most 16777216"),
        ("i3d_r18", {"mean": (1.0, 2.0)}, "mean must be three finite numbers, got"),
        ("i3d_r18", {"mean": 0.5}, "mean must be of type tuple, got 0.5"),
        ("i3d_r18", {"std": (58.0, 0.0, 57.0)}, "std must be three finite numbers greater than 0"),
        ("i3d_r18", {"std": (58.0, float("nan"), 57.0)}, "std must be three finite numbers"),
        ("dsa_i3d_r18", {"width": "wide"}, "width must be of type int, got 'wide'"),
        ("dsa_i3d_r18", {"alpha": 2.5}, "alpha must be of type int, got 2.5"),
        ("dsa_i3d_r18", {"stages": 3}, "stages must be of type tuple, got 3"),
        ("dsa_i3d_r18", {"beta": "1/8"}, "beta must be of type float, got '1/8'"),
        ("dsa_i3d_r18", {"segments": 1}, "segments must be at least 2, got 1"),
        ("v4d_i3d_r18", {"segments": 1}, "segments must be at least 2, got 1"),
        ("i3d_r18", {"num_classes": 0}, "num_classes must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_refused(name, options, message):
    with pytest.raises(ModelError, match=message) as caught:
        build_model(name, **{"num_classes": 5, **options})
    assert caught.value.exit_code == 2, "wrong usage"


def test_every_network_accepts_all_default_options():
    """A configuration file that sets every option to its default builds every network."""
    options = {"alpha": 2, "beta": 0.125, "stages": [3, 4], "position": "II", "blocks": None}
    for name in dsanet.list_models():
        with torch.device("meta"):
            build_model(name, num_classes=5, **options)


def test_normalisation_is_an_option(clips):
    """Other statistics are the same as other pixels: (x - m) / s."""
    options = {"mean": (10.0, 20.0, 30.0), "std": (50.0, 60.0, 70.0)}
    plain = build_model("i3d_r18", **SMALL).double().eval()
    other = build_model("i3d_r18", **SMALL, **options).double().eval()
    other.load_state_dict(plain.state_dict())
    assert (other.mean, other.std) == (options["mean"], options["std"])
    x, seen = clips(B=1), []
    for model in (plain, other):
        model.trunk.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
        with torch.no_grad():
            model(x)
    pixels = x.flatten(0, 2).permute(0, 3, 1, 2).double()
    for normalised, model in zip(seen, (plain, other), strict=True):
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.mean, model.std))
        torch.testing.assert_close(normalised, (pixels - mean) / std, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(1, 4, 2, 32, 32, 3),
        torch.zeros(4, 2, 32, 32, 3, dtype=torch.uint8),
        torch.zeros(1, 4, 3, 2, 32, 32, dtype=torch.uint8),
    ],
)
def test_clips_of_another_dtype_or_shape_are_refused(bad):
    with pytest.raises(ModelError, match="uint8"):
        build_model("i3d_r18", **SMALL)(bad)


def test_import_needs_torch_alone():
    code = (
        "import sys, dsanet; "
        "heavy = {'nvidia.dali', 'av', 'webdataset', 'jsonargparse', 'shards', 'pipelines'}; "
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
