"""Loads pretrained weights: recognises the layout of the file, renames and inflates its tensors."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dsanet.convs import SpatialConv, TemporalConv
from dsanet.errors import ModelError

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """Tensor names of one code base.

    ``signature``: pattern of a tensor name that only this layout has. ``renames``: substitutions
    (pattern, replacement) that give this package's names. ``inflates``: the file holds a 2-D image
    network, whose kernels are repeated over time.
    """

    name: str
    signature: str
    renames: tuple[tuple[str, str], ...] = ()
    inflates: bool = False


_DOWN = ((r"\.downsample\.0\.", ".shortcut.conv."), (r"\.downsample\.1\.", ".shortcut.bn."))
_HEAD = (r"^cls_head\.fc_cls\.", "fc.")
OWN = Layout("dsanet", r"^trunk\.conv1\.weight$")
LAYOUTS = (
    OWN,
    Layout(
        "mmaction2",
        r"^backbone\.conv1\.conv\.weight$",
        (
            (r"^backbone\.", "trunk."),
            (r"\.downsample\.(conv|bn)\.", r".shortcut.\1."),
            (r"\.conv(\d)\.conv\.(net\.)?", r".conv\1."),
            (r"\.conv(\d)\.bn\.", r".bn\1."),
            _HEAD,
        ),
    ),
    Layout(
        "DSANet release",
        r"^backbone\.conv1\.weight$",
        ((r"^backbone\.", "trunk."), (r"\.block\.", "."), (r"\.dsa\.", ".mixer."), *_DOWN, _HEAD),
    ),
    Layout(
        "TSM release",
        r"^base_model\.conv1\.weight$",
        ((r"^base_model\.", "trunk."), (r"\.net\.", "."), *_DOWN, (r"^new_fc\.", "fc.")),
    ),
    Layout(
        "torchvision ImageNet",
        r"^conv1\.weight$",
        ((r"^fc\.", "imagenet."), (r"^(?!imagenet\.)", "trunk."), *_DOWN),
        inflates=True,
    ),
)
# Tensors that are not of the network: ImageNet's classifier, input statistics of mmaction2.
NOT_OF_NETWORK = re.compile(r"^(imagenet|data_preprocessor)\.")


@dataclass(frozen=True)
class LoadReport:
    """Result of ``load_weights``: the layout of the file and the names of tensors.

    ``loaded``: tensors of the network that were set. ``inflated``: those of them whose kernels were
    repeated over time. ``skipped``: tensors of the file that were not used. ``missing``: tensors of
    the network that the file does not have; they keep their initialisation.
    """

    path: Path
    layout: str
    loaded: tuple[str, ...]
    inflated: tuple[str, ...]
    skipped: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{self.path}: {self.layout} layout, {len(self.loaded)} tensors loaded"]
        if self.inflated:
            parts.append(f"{len(self.inflated)} of them inflated over time")
        if self.skipped:
            parts.append(f"skipped from the file: {_shorten(self.skipped)}")
        if self.missing:
            parts.append(f"left at their initialisation: {_shorten(self.missing)}")
        return "; ".join(parts)


def load_weights(model: nn.Module, path: str | Path) -> LoadReport:
    """Load a network's weights from a ``torch.save`` file and report what was loaded.

    Known layouts: this package's; the authors' release (5-D kernels, ``backbone.``,
    ``cls_head.fc_cls.``); mmaction2's SlowOnly and TSM; the TSM release; torchvision's ImageNet
    ResNets, whose kernels are repeated over T and divided by the number of taps, and whose
    classifier is skipped. A classifier for another number of classes is skipped too. DSA, SE and
    V4D modules that the file does not have keep their initialisation. Everything else must fit
    exactly, or nothing is changed. Files are read with ``weights_only=True``: no code in them runs.

    Raises:
        ModelError: no such file, not a file of tensors, an unknown layout, or another architecture.
    """
    path = Path(path)
    state = _unwrap(_read(path), path)
    layout = _recognise(state, path)
    renamed = {_rename(name, layout): tensor for name, tensor in state.items()}
    return _WeightLoader(model, path, layout, renamed).load()


class _WeightLoader:
    """Fits tensors with this package's names to a network."""

    def __init__(self, model: nn.Module, path: Path, layout: Layout, state: State) -> None:
        self.model, self.path, self.layout, self.state = model, path, layout, state
        self.target = dict(model.state_dict())
        self.modules = dict(model.named_modules())
        self.skipped = [name for name in state if NOT_OF_NETWORK.match(name)]
        self.inflated: list[str] = []

    def load(self) -> LoadReport:
        self._skip_other_classifier()
        unknown = [n for n in self.state if n not in self.target and n not in self.skipped]
        if unknown:
            raise self._mismatch(f"it has {_shorten(unknown)}, which this network does not have")
        loaded = {
            n: self._convert(n) for n in self.state if n in self.target and n not in self.skipped
        }
        missing = [n for n in self.target if n not in loaded and not n.endswith("_tracked")]
        self._check_missing(missing)
        self.model.load_state_dict(loaded, strict=False)
        return LoadReport(
            self.path,
            self.layout.name,
            tuple(loaded),
            tuple(self.inflated),
            tuple(self.skipped),
            tuple(missing),
        )

    def _skip_other_classifier(self) -> None:
        """Skip a classifier for another number of classes."""
        for name in ("fc.weight", "fc.bias"):
            if name in self.state and len(self.state[name]) != len(self.target[name]):
                self.skipped.append(name)

    def _convert(self, name: str) -> Tensor:
        """The file's tensor in the shape of the network's, inflated over time where needed."""
        source, target = self.state[name], self.target[name]
        if source.shape == target.shape and (self.layout is OWN or source.ndim != 4):
            return source
        module = self.modules[name.rpartition(".")[0]]
        if source.ndim in (4, 5):
            source, taps = _as_5d(source), _temporal_taps(module)
            if self.layout.inflates and source.shape[2] == 1 < taps:
                self.inflated.append(name)
                source = source.expand(-1, -1, taps, -1, -1) / taps
            if source.shape == _shape_5d(module, target):
                return source.reshape(target.shape)
        theirs, ours = tuple(self.state[name].shape), tuple(target.shape)
        raise self._mismatch(f"its {name} has shape {theirs}, this network's has {ours}")

    def _check_missing(self, missing: list[str]) -> None:
        """Refuse missing tensors, except for all mixers or a skipped classifier."""
        mixers = [n for n in self.target if ".mixer." in n]
        if set(mixers) & set(self.state):
            mixers = []
        classifier = [n for n in missing if n.startswith("fc.")] if self.skipped else []
        lacking = [n for n in missing if n not in mixers and n not in classifier]
        if lacking:
            raise self._mismatch(f"it lacks {_shorten(lacking)}")

    def _mismatch(self, reason: str) -> ModelError:
        return ModelError(
            f"{self.path}: a {self.layout.name} checkpoint of another architecture: {reason}; "
            "build the network that it was saved from (name, depth, options)"
        )


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such weights file; check the path") from None
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: not a torch.save file, or one that holds more than tensors, which could run "
            "code; if you trust it, save its state_dict alone"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{path}: cannot be read as a torch.save file ({reason}); copy it again"
        ) from error


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint, without the prefixes of DDP and torch.compile.

    Averaged weights are preferred where a run has kept them, as in evaluation.
    """
    if isinstance(content, dict):
        inner = (content.get(key) for key in ("average", "state_dict", "model"))
        content = next((state for state in inner if isinstance(state, dict)), content)
    tensors = isinstance(content, dict) and content
    if not tensors or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(f"{path}: has no state_dict (a mapping of names to tensors)")
    return {re.sub(r"^((module|_orig_mod)\.)+", "", str(k)): v for k, v in content.items()}


def _recognise(state: State, path: Path) -> Layout:
    for layout in LAYOUTS:
        if any(re.match(layout.signature, name) for name in state):
            return layout
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise ModelError(
        f"{path}: unknown layout, with tensors {_shorten(list(state))}; known layouts: {known}"
    )


def _rename(name: str, layout: Layout) -> str:
    for pattern, replacement in layout.renames:
        name = re.sub(pattern, replacement, name)
    return name


def _as_5d(kernel: Tensor) -> Tensor:
    """A 4-D kernel (O, I, h, w) as (O, I, 1, h, w); a 5-D one unchanged."""
    return kernel if kernel.ndim == 5 else kernel.unsqueeze(2)


def _temporal_taps(module: nn.Module) -> int:
    return 1 if isinstance(module, SpatialConv) else 3


def _shape_5d(module: nn.Module, target: Tensor) -> tuple[int, ...]:
    """The shape (O, I, t, h, w) of a convolution's kernel over time and space."""
    if isinstance(module, TemporalConv):
        return (*target.shape, 1)
    if isinstance(module, SpatialConv):
        return (*target.shape[:2], 1, *target.shape[2:])
    return tuple(target.shape)


def _shorten(names: list[str] | tuple[str, ...], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
