"""Fits the tensors of a weights file to a network, all or none of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from dsanet.convs import ShiftConv, SpatialConv, TemporalConv
from dsanet.errors import ModelError, printable
from dsanet.recognizer import MEAN, RGB, STD, Recognizer
from dsanet.weights.files import SHOWN, WeightsFile, read_file
from dsanet.weights.layouts import (
    NOT_OF_NETWORK,
    OWN,
    Layout,
    State,
    recognise,
    renamed,
    shorten,
    weights_of,
)
from dsanet.weights.places import find_weights
from dsanet.weights.stated import Stated, stated_by
from dsanet.weights.tensors import check_tensor


@dataclass(frozen=True)
class LoadReport:
    """Result of ``load_weights``: the layout of the file and the names of tensors.

    ``loaded``: tensors of the network that were set. ``inflated``: those of them whose kernels were
    repeated over time. ``skipped``: tensors of the file that were not used. ``missing``: tensors of
    the network that the file does not have; they keep their initialisation. ``ignored``: classes
    and functions that the file names besides tensors; none of them was used.
    """

    path: Path
    layout: str
    loaded: tuple[str, ...]
    inflated: tuple[str, ...]
    skipped: tuple[str, ...]
    missing: tuple[str, ...]
    ignored: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.path}: {self.layout} layout, {len(self.loaded)} tensors loaded"]
        if self.inflated:
            parts.append(f"{len(self.inflated)} of them inflated over time")
        if self.skipped:
            parts.append(f"skipped from the file: {shorten(self.skipped)}")
        if self.missing:
            parts.append(f"left at their initialisation: {shorten(self.missing)}")
        if self.ignored:
            parts.append(f"ignored in the file: objects of {shorten(self.ignored)}")
        return "; ".join(parts)


def load_weights(model: nn.Module, path: str | Path) -> LoadReport:
    """Load a network's weights from a file and report what was loaded.

    The file is of ``torch.save`` or safetensors. Known layouts: this package's; the authors'
    release; mmaction2's SlowOnly and TSM; the TSM release; PySlowFast's and pytorchvideo's SLOW;
    the ImageNet ResNets of torchvision and timm, whose kernels are repeated over T and divided by
    the number of taps, and whose classifier is skipped. A classifier for another number of classes
    is skipped too. DSA, SE and V4D modules that the file does not have keep their initialisation.
    Everything else must fit exactly, with the temporal shift and the normalisation of the input
    that the file states, or nothing is changed. No code in a file runs.

    path: a file, a folder with model.safetensors, or the name of one of timm's ResNets whose file
    is in the cache of the Hugging Face hub.

    Raises:
        ModelError: no such file, not a file of tensors, an unknown layout, or another architecture.
    """
    file = read_file(find_weights(Path(path)))
    state, left_out = weights_of(file)
    layout = recognise(state, file)
    stated = stated_by(file, layout, state)
    if stated.unsupported:
        raise ModelError(
            f"{file.path}: a {layout.name} checkpoint of a network that {stated.unsupported}; no "
            "network of this package does the same"
        )
    _check_shift(model, layout, state, file)
    _check_normalisation(model, layout, stated, file)
    return _WeightLoader(model, file, layout, renamed(state, layout, file), left_out).load()


def normalisation_of(path: str | Path) -> dict[str, RGB]:
    """The options `mean` and `std` with which a network must be built for a file of weights.

    Empty where neither the file nor its layout tells.

    Raises:
        ModelError: no such file, not a file of tensors, or an unknown layout.
    """
    file = read_file(find_weights(Path(path)))
    state, _ = weights_of(file)
    layout = recognise(state, file)
    mean, std = _normalisation(layout, stated_by(file, layout, state))
    return {"mean": mean, "std": std} if mean and std else {}


def _normalisation(layout: Layout, stated: Stated) -> tuple[RGB | None, RGB | None]:
    """What a file states, or what is usual for its layout."""
    if stated.mean is not None and stated.std is not None:
        return stated.mean, stated.std
    return layout.mean, layout.std


def _check_shift(model: nn.Module, layout: Layout, state: State, file: WeightsFile) -> None:
    """Refuse a file whose network shifts other features over time than this one.

    A shift has no tensors; the names of the tensors after it tell where it is.
    """
    if layout.shifted is None:
        return
    blocks = sum(isinstance(module, ShiftConv) for module in model.modules())
    pattern = layout.shifted
    marked = sum(
        bool(pattern and re.search(pattern, name)) and name.endswith("weight") for name in state
    )
    what = f"{file.path}: a {layout.name} checkpoint"
    if blocks and not marked:
        raise ModelError(
            f"{what} of a network without temporal shift, such as a 2-D TSN, and this network has "
            "one; load weights of a TSM, or of an ImageNet ResNet"
        )
    if marked and not blocks:
        raise ModelError(f"{what} of a TSM, and this network has no temporal shift; build tsm_r50")
    if marked != blocks:
        raise ModelError(
            f"{what} with a temporal shift in {marked} blocks, and this network has it in {blocks}"
        )


def _check_normalisation(
    model: nn.Module, layout: Layout, stated: Stated, file: WeightsFile
) -> None:
    """Refuse a file for another normalisation of the input than the network's.

    Where the file does not state it, the layout's usual one is compared, unless the network has
    been given values of its own.
    """
    mean, std = _normalisation(layout, stated)
    if mean is None or std is None or not hasattr(model, "mean"):
        return
    our_mean, our_std = cast(Recognizer, model).mean, cast(Recognizer, model).std
    if _is_close(mean, our_mean) and _is_close(std, our_std):
        return
    if stated.mean is None and (our_mean, our_std) != (MEAN, STD):
        return
    raise ModelError(
        f"{file.path}: a {layout.name} checkpoint of a network that normalises frames with mean "
        f"{_list(mean)} and std {_list(std)}, this one has {_list(our_mean)} and {_list(our_std)}; "
        f"set network.mean and network.std (train.py --network.mean '{_list(mean)}' --network.std "
        f"'{_list(std)}')"
    )


def _is_close(one: RGB, other: RGB) -> bool:
    return all(abs(a - b) <= 1e-3 * max(abs(a), abs(b)) for a, b in zip(one, other, strict=True))


def _list(values: RGB) -> str:
    return f"[{', '.join(f'{v:g}' for v in values)}]"


class _WeightLoader:
    """Fits tensors with this package's names to a network."""

    def __init__(
        self,
        model: nn.Module,
        file: WeightsFile,
        layout: Layout,
        state: State,
        left_out: list[str],
    ) -> None:
        self.model, self.file, self.layout, self.state = model, file, layout, state
        self.target = dict(model.state_dict())
        self.modules = dict(model.named_modules())
        self.skipped = [name for name in state if NOT_OF_NETWORK.match(name)]
        self.left_out = left_out
        self.inflated: list[str] = []

    def load(self) -> LoadReport:
        self._skip_other_classifier()
        unknown = [n for n in self.state if n not in self.target and n not in self.skipped]
        if unknown:
            raise self._mismatch(f"it has {shorten(unknown)}, which this network does not have")
        loaded = {
            n: self._convert(n) for n in self.state if n in self.target and n not in self.skipped
        }
        missing = [n for n in self.target if n not in loaded and not n.endswith("_tracked")]
        self._check_missing(missing)
        self.model.load_state_dict(loaded, strict=False)
        return LoadReport(
            self.file.path,
            self.layout.name,
            tuple(loaded),
            tuple(self.inflated),
            (*self.skipped, *self.left_out),
            tuple(missing),
            self.file.ignored,
        )

    def _skip_other_classifier(self) -> None:
        """Skip a classifier that differs from the network's in its number of classes alone."""
        names = [n for n in ("fc.weight", "fc.bias") if n in self.state and n in self.target]
        pairs = [(self.state[n].shape, self.target[n].shape) for n in names]
        fits_but_classes = all(len(a) == len(b) and a[1:] == b[1:] for a, b in pairs)
        if fits_but_classes and any(a != b for a, b in pairs):
            self.skipped += names

    def _convert(self, name: str) -> Tensor:
        """The file's tensor in the shape of the network's, inflated over time where needed."""
        source, target = self.state[name], self.target[name]
        if reason := check_tensor(source, target):
            raise self._refusal(name, reason)
        result = self._reshape(name, source, target)
        if not torch.isfinite(result).all():
            raise self._refusal(name, "holds numbers that are not finite (NaN or infinite)")
        if name.endswith("running_var") and result.min() < 0:
            raise self._refusal(name, "holds a negative variance")
        return result

    def _reshape(self, name: str, source: Tensor, target: Tensor) -> Tensor:
        if source.shape == target.shape and (self.layout is OWN or source.ndim != 4):
            return source
        module = self.modules[name.rpartition(".")[0]]
        if source.ndim in (4, 5):
            kernel, taps = _as_5d(source), _temporal_taps(module)
            inflate = self.layout.inflates and kernel.shape[2] == 1 < taps
            shape = list(kernel.shape)
            shape[2] = taps if inflate else shape[2]
            if tuple(shape) == _shape_5d(module, target):
                if inflate:
                    self.inflated.append(name)
                    kernel = kernel.expand(shape) / taps
                return kernel.reshape(target.shape)
        theirs, ours = tuple(source.shape), tuple(target.shape)
        raise self._mismatch(
            f"its {printable(name, SHOWN)} has shape {printable(theirs, SHOWN)}, this network's "
            f"has {ours}"
        )

    def _check_missing(self, missing: list[str]) -> None:
        """Refuse missing tensors, except for all mixers or the classifier of other classes."""
        mixers = [n for n in self.target if ".mixer." in n]
        if set(mixers) & set(self.state):
            mixers = []
        other_classes = self.layout.inflates or "fc.weight" in self.skipped
        classifier = [n for n in missing if n.startswith("fc.")] if other_classes else []
        lacking = [n for n in missing if n not in mixers and n not in classifier]
        if lacking:
            raise self._mismatch(f"it lacks {shorten(lacking)}")

    def _mismatch(self, reason: str) -> ModelError:
        return ModelError(
            f"{self.file.path}: a {self.layout.name} checkpoint of another architecture: {reason}; "
            "build the network that it was saved from (name, depth, options)"
        )

    def _refusal(self, name: str, reason: str) -> ModelError:
        return ModelError(
            f"{self.file.path}: its {printable(name, SHOWN)} {reason}; save the plain weights of a "
            "network that works"
        )


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
