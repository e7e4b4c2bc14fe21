"""Networks for deployment: folded batch norms, torch.export, ONNX, safetensors."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from dsanet.errors import ModelError, require
from dsanet.metadata import ExportMetadata
from dsanet.recognizer import Recognizer


def fold_batch_norms(model: Recognizer) -> Recognizer:
    """Copy a network, in eval mode, with batch norms folded into the layers before them.

    For inference only. Logits agree to rounding. The copy has no batch norms, not even in DSA.
    """
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        _fold_children(module)
    return model


@torch.no_grad()
def refold(folded: nn.Module, model: Recognizer) -> None:
    """Bring a result of `fold_batch_norms` up to date with its network, in the same memory."""
    folded.load_state_dict(fold_batch_norms(model).state_dict())


def _fold_children(module: nn.Module) -> None:
    """Fold each ``bnN`` into ``convN``, and each BatchNorm1d into the Linear before it."""
    previous: nn.Module | None = None
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            layer = getattr(module, name.replace("bn", "conv"))
            _fold(layer, child)
            setattr(module, name, nn.Identity())
        elif isinstance(child, nn.BatchNorm1d) and isinstance(previous, nn.Linear):
            _fold(previous, child)
            setattr(module, name, nn.Identity())
        previous = child


@torch.no_grad()
def _fold(layer: nn.Module, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    weight, bias = fuse(layer.weight, layer.bias, *statistics)  # type: ignore[arg-type]
    assert isinstance(layer.weight, Tensor)
    # Copied into place, which keeps a channels_last kernel channels_last.
    layer.weight.copy_(weight)
    layer.bias = nn.Parameter(bias)


@dataclass(frozen=True)
class ClipShape:
    """Fixed U, T and side in pixels of an exported network's input."""

    segments: int = 4
    frames: int = 4
    size: int = 224

    def of(self, batch: int) -> tuple[int, ...]:
        """Shape of a clip tensor (B, U, T, H, W, 3)."""
        return (batch, self.segments, self.frames, self.size, self.size, 3)


def export_program(model: Recognizer, shape: ClipShape) -> torch.export.ExportedProgram:
    """``torch.export`` a network in eval mode for uint8 clips (batch, U, T, H, W, 3).

    The batch is dynamic, the rest is fixed.

    Raises:
        ModelError: a U other than the network's, or an empty clip.
    """
    if model.segments is not None:
        must = f"be {model.segments}, as the network was built"
        require(shape.segments == model.segments, "segments", must, shape.segments, ModelError)
    for option, least in (("segments", 1), ("frames", 1), ("size", 32)):
        value = getattr(shape, option)
        require(value >= least, option, f"be at least {least}", value, ModelError)
    device = next(model.parameters()).device
    example = torch.zeros(shape.of(2), dtype=torch.uint8, device=device)
    dynamic = {"clips": {0: torch.export.Dim("batch", min=1)}}
    return torch.export.export(model.eval(), (example,), dynamic_shapes=dynamic)


def save_program(
    program: torch.export.ExportedProgram, path: str | Path, metadata: ExportMetadata | None = None
) -> None:
    """Write an exported network as a .pt2 archive, with its metadata in `metadata.json`.

    To read it: ``files = {"metadata.json": ""}; torch.export.load(path, extra_files=files)``.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    texts = metadata.texts() if metadata else {}
    torch.export.save(program, path, extra_files={"metadata.json": json.dumps(texts)})


def export_onnx(
    program: torch.export.ExportedProgram, path: str | Path, metadata: ExportMetadata | None = None
) -> None:
    """Write an exported network as ONNX: input ``clips``, output ``logits``, axis 0 ``batch``.

    The metadata becomes the model's ``metadata_props``.

    Raises:
        ModelError: if onnx or onnxscript is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"ONNX export needs the package {error.name}: pip install 'dsanet[onnx]'"
        ) from error
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    onnx_program = torch.onnx.export(
        program,
        dynamo=True,
        input_names=["clips"],
        output_names=["logits"],
        # The shapes are those of the program; this gives the dynamic axis its name.
        dynamic_shapes={"clips": {0: "batch"}},
        verbose=False,
    )
    assert onnx_program is not None
    if metadata:
        onnx_program.model.metadata_props.update(metadata.texts())
    onnx_program.save(str(path))


def save_safetensors(
    model: nn.Module, path: str | Path, metadata: ExportMetadata | None = None
) -> None:
    """Write a network's weights as safetensors, under this package's names, with its metadata.

    Raises:
        ModelError: if safetensors is not installed.
    """
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise ModelError("writing safetensors needs a package: pip install safetensors") from error
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    texts = {"format": "pt", **(metadata.texts() if metadata else {})}
    Path(path).write_bytes(save(tensors, texts))  # save_file would let nobody else read the file
