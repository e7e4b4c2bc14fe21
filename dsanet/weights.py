"""Weights in: recognise a checkpoint's layout, rename, inflate, check everything, then copy."""

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
    """How one code base names its tensors: a telling name, and substitutions to our names.

    ``inflates``: the file is of a 2-D image network, whose kernels are repeated over time.
    """

    name: str
    telling: str
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
# Tensors beside the network: ImageNet's classifier, and input statistics of mmaction2.
BESIDE = re.compile(r"^(imagenet|data_preprocessor)\.")


@dataclass(frozen=True)
class LoadReport:
    """What ``load_weights`` did: the layout, and the names taken, skipped and missed.

    ``taken``: tensors of the network that were set; ``inflated``: those of them repeated over time;
    ``skipped``: tensors of the file not used; ``missed``: tensors of the network left as they were.
    """

    path: Path
    layout: str
    taken: tuple[str, ...]
    inflated: tuple[str, ...]
    skipped: tuple[str, ...]
    missed: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{self.path}: {self.layout} layout, {len(self.taken)} tensors taken"]
        if self.inflated:
            parts.append(f"{len(self.inflated)} of them inflated over time")
        if self.skipped:
            parts.append(f"skipped from the file: {_some(self.skipped)}")
        if self.missed:
            parts.append(f"left at their initialisation: {_some(self.missed)}")
        return "; ".join(parts)


def load_weights(model: nn.Module, path: str | Path) -> LoadReport:
    """Set a network's weights from a ``torch.save`` file; tell what was taken, skipped, missed.

    Recognised layouts: this package's; the authors' release (5-D kernels, ``backbone.``,
    ``cls_head.fc_cls.``); mmaction2's SlowOnly and TSM; the TSM release; torchvision's ImageNet
    ResNets, whose kernels are repeated over T and divided by its taps, and whose classifier is
    dropped. A classifier for another number of classes is skipped. DSA, SE or V4D modules that the
    file knows nothing of keep their initialisation. Everything else must fit exactly, or nothing is
    changed. Files are read with ``weights_only=True``: nothing in them is ever executed.

    Raises:
        ModelError: no such file, not a file of tensors, no known layout, or another architecture.
    """
    path = Path(path)
    state = _unwrap(_read(path), path)
    layout = _recognise(state, path)
    renamed = {_rename(name, layout): tensor for name, tensor in state.items()}
    return _Loading(model, path, layout, renamed).run()


class _Loading:
    """One call of ``load_weights`` after the names are ours."""

    def __init__(self, model: nn.Module, path: Path, layout: Layout, state: State) -> None:
        self.model, self.path, self.layout, self.state = model, path, layout, state
        self.target = dict(model.state_dict())
        self.modules = dict(model.named_modules())
        self.skipped = [name for name in state if BESIDE.match(name)]
        self.inflated: list[str] = []

    def run(self) -> LoadReport:
        self._skip_other_classifier()
        unknown = [n for n in self.state if n not in self.target and n not in self.skipped]
        if unknown:
            raise self._misfit(f"it holds {_some(unknown)}, for which this network has no place")
        taken = {n: self._fit(n) for n in self.state if n in self.target and n not in self.skipped}
        missed = [n for n in self.target if n not in taken and not n.endswith("_tracked")]
        self._check_missed(missed)
        self.model.load_state_dict(taken, strict=False)
        return LoadReport(
            self.path,
            self.layout.name,
            tuple(taken),
            tuple(self.inflated),
            tuple(self.skipped),
            tuple(missed),
        )

    def _skip_other_classifier(self) -> None:
        """Another data set's classifier is of no use; its trunk is."""
        for name in ("fc.weight", "fc.bias"):
            if name in self.state and len(self.state[name]) != len(self.target[name]):
                self.skipped.append(name)

    def _fit(self, name: str) -> Tensor:
        """The file's tensor in the shape of ours: kernels squeezed, or inflated over time."""
        source, target = self.state[name], self.target[name]
        if source.shape == target.shape and (self.layout is OWN or source.ndim != 4):
            return source
        module = self.modules[name.rpartition(".")[0]]
        if source.ndim in (4, 5):
            source, taps = _volume(source), _taps(module)
            if self.layout.inflates and source.shape[2] == 1 < taps:
                self.inflated.append(name)
                source = source.expand(-1, -1, taps, -1, -1) / taps
            if source.shape == _volume_shape(module, target):
                return source.reshape(target.shape)
        theirs, ours = tuple(self.state[name].shape), tuple(target.shape)
        raise self._misfit(f"its {name} is {theirs}, and this network's is {ours}")

    def _check_missed(self, missed: list[str]) -> None:
        """Only whole kinds of tensors may be missing: all added modules, or the classifier."""
        added = [n for n in self.target if ".mixer." in n]
        if set(added) & set(self.state):
            added = []
        classifier = [n for n in missed if n.startswith("fc.")] if self.skipped else []
        lacking = [n for n in missed if n not in added and n not in classifier]
        if lacking:
            raise self._misfit(f"it lacks {_some(lacking)}")

    def _misfit(self, why: str) -> ModelError:
        return ModelError(
            f"{self.path}: a {self.layout.name} checkpoint of another architecture: {why}. "
            "Build the network it was made for (name, depth, options)"
        )


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such weights file") from None
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: holds more than tensors, or is no torch.save file, and is not opened "
            "(loading it could run its code). If you trust it, save its state_dict alone"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path}: cannot be read as a torch.save file: {reason}") from error


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict inside a checkpoint, without the prefixes of DDP and torch.compile.

    Of a run that kept averaged weights those are taken, as evaluation does.
    """
    if isinstance(content, dict):
        inner = (content.get(key) for key in ("average", "state_dict", "model"))
        content = next((found for found in inner if isinstance(found, dict)), content)
    tensors = isinstance(content, dict) and content
    if not tensors or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(f"{path}: holds no state_dict (a mapping of names to tensors)")
    return {re.sub(r"^((module|_orig_mod)\.)+", "", str(k)): v for k, v in content.items()}


def _recognise(state: State, path: Path) -> Layout:
    for layout in LAYOUTS:
        if any(re.match(layout.telling, name) for name in state):
            return layout
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise ModelError(f"{path}: no known layout ({known}); it holds {_some(list(state))}")


def _rename(name: str, layout: Layout) -> str:
    for pattern, replacement in layout.renames:
        name = re.sub(pattern, replacement, name)
    return name


def _volume(kernel: Tensor) -> Tensor:
    """A foreign 4-D kernel (O, I, h, w) as (O, I, 1, h, w); a 5-D one as it is."""
    return kernel if kernel.ndim == 5 else kernel.unsqueeze(2)


def _taps(module: nn.Module) -> int:
    return 1 if isinstance(module, SpatialConv) else 3


def _volume_shape(module: nn.Module, target: Tensor) -> tuple[int, ...]:
    """The 5-D shape (O, I, t, h, w) that our kernel stands for."""
    if isinstance(module, TemporalConv):
        return (*target.shape, 1)
    if isinstance(module, SpatialConv):
        return (*target.shape[:2], 1, *target.shape[2:])
    return tuple(target.shape)


def _some(names: list[str] | tuple[str, ...], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
