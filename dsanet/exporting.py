"""Writes a network for other programs, and runs the file with the library that will read it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsanet.errors import ModelError
from dsanet.inference import (
    ClipShape,
    export_onnx,
    export_program,
    save_program,
    save_safetensors,
)
from dsanet.metadata import KEY, ExportMetadata
from dsanet.recognizer import Recognizer
from dsanet.weights import load_weights
from dsanet.weights.files import read_file
from dsanet.zoo import build_model

FORMATS = (".onnx", ".pt2", ".safetensors")


def describe(
    model: Recognizer,
    name: str,
    network: dict[str, Any],
    shape: ClipShape,
    classes: Sequence[str] | None = None,
    training: dict[str, Any] | None = None,
) -> ExportMetadata:
    """The metadata of a network for clips of one shape.

    name, network: the arguments of `build_model` that made it. training: further facts.
    """
    return ExportMetadata(
        model=name,
        network=network,
        segments=shape.segments,
        frames=shape.frames,
        size=shape.size,
        mean=model.mean,
        std=model.std,
        num_classes=model.num_classes,
        classes=None if classes is None else tuple(classes),
        training=training or {},
    )


def write(model: Recognizer, shape: ClipShape, metadata: ExportMetadata, path: Path) -> None:
    """Write a network in the format that the name of the file tells.

    Raises:
        ModelError: when a package for it is not installed, or the clips do not fit.
    """
    if path.suffix == ".safetensors":
        save_safetensors(model, path, metadata)
        return
    program = export_program(model, shape)
    if path.suffix == ".onnx":
        export_onnx(program, path, metadata)
    else:
        save_program(program, path, metadata)


def largest_difference(model: Recognizer, path: Path, shape: ClipShape) -> float:
    """Largest difference from a network over batches of 1 and 3, relative to the largest logit."""
    run, worst = runner(path), 0.0
    for batch in (1, 3):
        clips = torch.randint(0, 256, shape.of(batch), dtype=torch.uint8)
        with torch.no_grad():
            expected = model(clips)
            worst = max(worst, ((run(clips) - expected).abs().max() / expected.abs().max()).item())
    return worst


def runner(path: Path) -> Callable[[Tensor], Tensor]:
    """Load a file as a function of clips (B, U, T, H, W, 3) that gives logits (B, classes).

    Raises:
        ModelError: when a package for it is not installed.
    """
    if path.suffix == ".safetensors":
        return read_exported(path)
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError("checking ONNX needs onnxruntime: pip install 'dsanet[onnx]'") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda clips: torch.from_numpy(session.run(None, {"clips": clips.numpy()})[0])


def read_exported(path: Path) -> Recognizer:
    """Build the network of a .safetensors file from its metadata, with its weights, in eval mode.

    Raises:
        ModelError: when the file was not exported by this package.
    """
    try:
        metadata = json.loads(read_file(path).metadata[KEY])
        name, network = metadata["model"], dict(metadata["network"])
        classes, segments = metadata["num_classes"], metadata["segments"]
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"{path}: was not written by tools/export.py; give its --model") from error
    model = build_model(name, num_classes=classes, segments=segments, **network)
    load_weights(model, path)
    return model.eval()
