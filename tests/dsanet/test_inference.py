"""Folded batch norms, torch.export and ONNX give the logits of eager mode."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import dsanet
from dsanet import ModelError, build_model
from dsanet.exporting import describe
from dsanet.inference import (
    ClipShape,
    export_onnx,
    export_program,
    fold_batch_norms,
    save_program,
)

ROOT = Path(__file__).parents[2]
SHAPE = ClipShape(segments=4, frames=3, size=32)
TINY = {"num_classes": 5, "width": 16, "blocks": (1, 1, 1, 1)}
# Warnings of torch's exporter about its own code, and about channels_last weights in archives.
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore:No complete tensor:UserWarning"
)


def trained(name: str, **options) -> dsanet.zoo.Recognizer:
    """A network in eval mode whose batch norms have random statistics."""
    every = {"every": 1} if name.startswith(("dsa", "se")) else {}
    model = build_model(name, **(TINY | every | options))
    nn.init.normal_(model.fc.weight)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def clip(batch: int) -> torch.Tensor:
    return torch.randint(0, 256, SHAPE.of(batch), dtype=torch.uint8)


@pytest.mark.parametrize("name", dsanet.list_models())
def test_folded_batch_norms(name):
    model = trained(name)
    folded = fold_batch_norms(model)
    kinds = {type(m) for m in folded.modules()}
    assert not kinds & {nn.BatchNorm1d, nn.BatchNorm2d}
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    weights = [p for p in folded.parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    x = clip(2)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", dsanet.list_models())
def test_torch_export(name):
    model = trained(name)
    module = export_program(model, SHAPE).module()
    for batch in (1, 5):
        x = clip(batch)
        with torch.no_grad():
            torch.testing.assert_close(module(x), model(x), rtol=1e-4, atol=1e-4)


def check_onnx(model, path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    metadata = describe(model, "a network", {}, SHAPE, ["a", "b", "c", "d", "é"])
    export_onnx(export_program(model, SHAPE), path, metadata)
    proto = onnx.load(path)
    for value in (proto.graph.input[0], proto.graph.output[0]):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    assert {name: entries[name] for name in metadata.texts()} == metadata.texts()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        x = clip(batch)
        with torch.no_grad():
            expected = model(x)
        ours = torch.from_numpy(session.run(["logits"], {"clips": x.numpy()})[0])
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_onnx(tmp_path):
    check_onnx(fold_batch_norms(trained("dsa_i3d_r18")), tmp_path / "folder" / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", dsanet.list_models())
@pytest.mark.parametrize("fold", [False, True])
def test_onnx_of_every_network(name, fold, tmp_path):
    model = trained(name)
    check_onnx(fold_batch_norms(model) if fold else model, tmp_path / "model.onnx")


def test_a_saved_program_gives_the_same_logits(tmp_path):
    model = trained("dsa_tsm_r50")
    metadata = describe(model, "dsa_tsm_r50", {"width": 16}, SHAPE, ["a", "b", "c", "d", "é"])
    save_program(export_program(model, SHAPE), tmp_path / "model.pt2", metadata)
    x, files = clip(3), {"metadata.json": ""}
    with torch.no_grad():
        read = torch.export.load(tmp_path / "model.pt2", extra_files=files).module()
        assert json.loads(files["metadata.json"]) == metadata.texts()
        torch.testing.assert_close(read(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [ClipShape(3), ClipShape(4, 0), ClipShape(4, 2, 8)])
def test_other_or_empty_clips_are_refused(shape):
    with pytest.raises(ModelError, match=r"^(segments|frames|size) must be .*, got "):
        export_program(trained("dsa_i3d_r18"), shape)


def tool(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools/export.py"), *args]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_tool(tmp_path):
    args = ("--model", "dsa_i3d_r18", "--num-classes", "5", "--size", "32", "--frames", "1")
    done = tool(*args, "--fold-bn", "--out", str(tmp_path / "model.pt2"))
    assert done.returncode == 0, done.stderr
    assert "clips uint8 (batch, 4, 1, 32, 32, 3) -> logits" in done.stdout
    assert "largest difference from eager" in done.stdout


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--model", "nope", "--num-classes", "5", "--out", "x.pt2"), 2, "unknown network 'nope'"),
        (("--model", "i3d_r18", "--out", "x.pt2"), 2, "--model needs --num-classes"),
        (("--model", "i3d_r18", "--num-classes", "5", "--out", "x.txt"), 2, ".onnx, .pt2"),
        (("--checkpoint", "/nowhere", "--out", "x.pt2"), 1, "/nowhere"),
    ],
)
def test_wrong_usage_of_the_tool(args, code, message):
    done = tool(*args)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
