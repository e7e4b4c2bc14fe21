"""Exported files say what a program needs to know to use them, and are read back."""

from __future__ import annotations

import json
import sys

import export  # tools/export.py
import pytest
import torch
from torch import nn

from dsanet import ModelError, build_model, load_weights
from dsanet.exporting import describe, largest_difference, read_exported, write
from dsanet.inference import ClipShape
from tests.dsanet.weights import slow

SHAPE = ClipShape(segments=4, frames=2, size=32)
OPTIONS = {"width": 16, "blocks": (1, 1, 1, 1), "every": 1, "mean": (1.0, 2.0, 3.0)}
CLASSES = ("run", "ходьба", 'a "quoted" name')


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = build_model("dsa_i3d_r18", num_classes=3, **OPTIONS)
    nn.init.normal_(model.fc.weight)
    return model.eval()


def test_safetensors_is_read_back(model, tmp_path):
    safetensors = pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    metadata = describe(model, "dsa_i3d_r18", OPTIONS, SHAPE, CLASSES, {"sampling": {"stride": 8}})
    write(model, SHAPE, metadata, path)
    assert largest_difference(model, path, SHAPE) == 0
    with safetensors.safe_open(path, "pt") as file:
        texts = file.metadata()
    values = {name: json.loads(text) for name, text in texts.items() if name != "format"}
    assert tuple(values["classes"]) == CLASSES
    assert [values[n] for n in ("segments", "frames", "size", "num_classes")] == [4, 2, 32, 3]
    assert values["mean"] == [1.0, 2.0, 3.0]
    assert "(clips - mean) / std" in values["normalisation"]
    assert values["dsanet"]["training"] == {"sampling": {"stride": 8}}
    again = read_exported(path)
    assert (again.mean, again.segments) == ((1.0, 2.0, 3.0), 4)
    with pytest.raises(ModelError, match=r"mean \[1, 2, 3\]"):
        load_weights(
            build_model("dsa_i3d_r18", num_classes=3, **{**OPTIONS, "mean": (9.0,) * 3}), path
        )


def test_weights_of_another_project_are_not_read_as_exported(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match=r"was not written by tools/export\.py"):
        read_exported(tmp_path / "a.safetensors")


def test_tool_keeps_the_normalisation_of_the_weights(tmp_path, monkeypatch, capsys):
    """A SLOW of PySlowFast at full width, whose mean is 0.45."""
    monkeypatch.setattr(slow, "WIDTH", 64)
    monkeypatch.setattr(slow, "BLOCKS", (3, 4, 6, 3))
    torch.save({"model_state": slow.random_state(slow.PYSLOWFAST)}, tmp_path / "SLOW.pyth")
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    args = ("--model", "i3d_r50", "--weights", tmp_path / "SLOW.pyth", "--segments", 1)
    args += ("--frames", 1, "--size", 32, "--classes", tmp_path / "names.txt")
    argv = ["export.py", *map(str, args), "--out", str(tmp_path / "model.pt2")]
    monkeypatch.setattr(sys, "argv", argv)
    model, shape, metadata = export.load(export.parse())
    assert "PySlowFast layout" in capsys.readouterr().out
    assert model.mean == metadata.mean == tuple(metadata.network["mean"]) == (114.75,) * 3
    assert (shape, metadata.classes) == (ClipShape(1, 1, 32), tuple("abcde"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--model", "i3d_r18", "--out", "a.onnx"), "--model needs --num-classes, or --classes"),
        (("--checkpoint", "a", "--fold-bn", "--out", "a.safetensors"), "--fold-bn: a .safetensors"),
    ],
)
def test_wrong_usage(args, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["export.py", *args])
    with pytest.raises(SystemExit) as caught:
        export.parse()
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
