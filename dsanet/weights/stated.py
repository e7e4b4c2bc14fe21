"""What a file of weights says about its network besides its tensors.

Tensors alone do not tell how the input was normalised, or where features are shifted over time.
Code bases record it in the text of their configuration, in the name of the file, or beside it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dsanet.metadata import KEY
from dsanet.recognizer import MEAN, RGB, STD
from dsanet.weights.files import WeightsFile
from dsanet.weights.layouts import OWN, Layout, State

LONGEST = 1 << 20  # characters of a configuration that are read
BLOCK_SHIFT = "shifts the input of whole blocks (shift_place block), not of first convolutions"
POOLING = "pools over time before res3 (temporal_pool)"
_NUMBERS = r"\[\s*([\d.]+(?:\s*,\s*[\d.]+)*)\s*,?\s*\]"
_YAML_LIST = r"((?:\n\s*-\s*[\d.]+)+)"


@dataclass(frozen=True)
class Stated:
    """What a file says; None and "" where it says nothing.

    Attributes:
        mean, std: of the input on a scale of 0 to 255.
        unsupported: what its network does that none of this package's does.
    """

    mean: RGB | None = None
    std: RGB | None = None
    unsupported: str = ""


def stated_by(file: WeightsFile, layout: Layout, state: State) -> Stated:
    """What a file, its name and its neighbours say about its network.

    state: the tensors by the names of the file, without the prefixes of wrappers.
    """
    text = _configuration(file.content)
    mean, std = _normalisation(file, layout, state, text)
    return Stated(mean, std, _shift(file.path, state, text) or _colours_and_strides(text))


def _configuration(content: Any) -> str:
    """The text of the configuration in a checkpoint of mmaction2 or PySlowFast."""
    if not isinstance(content, dict):
        return ""
    meta = content.get("meta")
    places = (content.get("cfg"), *(meta.get(k) for k in ("cfg", "config")
                                    if isinstance(meta, dict)))  # fmt: skip
    return next((text[:LONGEST] for text in places if isinstance(text, str)), "")


def _normalisation(
    file: WeightsFile, layout: Layout, state: State, text: str
) -> tuple[RGB | None, RGB | None]:
    if layout is OWN:
        return _of_this_package(file)
    if layout.inflates:
        return _of_timm(file.path)
    if "data_preprocessor.mean" in state:
        return _values(state, "data_preprocessor.mean"), _values(state, "data_preprocessor.std")
    if layout.name == "PySlowFast":
        scale = 255.0
        found = [_lists(rf"\b{name}:\s*(?:{_NUMBERS}|{_YAML_LIST})", text)
                 for name in ("MEAN", "STD")]  # fmt: skip
    else:
        scale = 1.0
        found = [_lists(rf"\b{name}\s*=\s*{_NUMBERS}", text) for name in ("mean", "std")]
    mean, std = (_one_value(values, scale) for values in found)
    return mean, std


def _lists(pattern: str, text: str) -> list[list[float]]:
    """The lists of numbers that a pattern finds."""
    matches = (next(g for g in match.groups() if g) for match in re.finditer(pattern, text))
    return [[float(n) for n in re.findall(r"\d+\.?\d*|\.\d+", group)] for group in matches]


def _one_value(found: list[list[float]], scale: float) -> RGB | None:
    """The value that a configuration gives; None if it gives none, or several."""
    values = {tuple(round(v * scale, 6) for v in numbers) for numbers in found}
    return _rgb(values.pop()) if len(values) == 1 else None


def _rgb(values: Any) -> RGB | None:
    """Three finite numbers as a tuple, else None."""
    valid = isinstance(values, (list, tuple)) and len(values) == 3
    if not valid or not all(isinstance(v, (int, float)) and abs(v) < 1e6 for v in values):
        return None
    red, green, blue = (float(v) for v in values)
    return red, green, blue


def _values(state: State, name: str) -> RGB | None:
    tensor = state.get(name)
    if not isinstance(tensor, Tensor) or tensor.numel() != 3 or not tensor.is_floating_point():
        return None
    return _rgb(tensor.flatten().tolist())


def _of_this_package(file: WeightsFile) -> tuple[RGB | None, RGB | None]:
    """Of the settings in a run's checkpoint, or of the metadata of an exported file."""
    network: Any = None
    if KEY in file.metadata:
        network = _json(file.metadata[KEY], "network")
    elif isinstance(file.content, dict) and isinstance(file.content.get("config"), dict):
        network = file.content["config"].get("network")
    if not isinstance(network, dict):
        return None, None
    # Settings without these keys are from before there were such options.
    return _rgb(network.get("mean", MEAN)), _rgb(network.get("std", STD))


def _of_timm(path: Path) -> tuple[RGB | None, RGB | None]:
    """Of config.json beside the weights, as in timm's folders on the Hugging Face hub."""
    config = path.with_name("config.json")
    try:
        if not config.is_file() or config.stat().st_size > LONGEST:
            return None, None
        settings = _json(config.read_text(encoding="utf-8"), "pretrained_cfg")
    except (OSError, ValueError):
        return None, None
    if not isinstance(settings, dict):
        return None, None
    mean, std = _rgb(settings.get("mean")), _rgb(settings.get("std"))
    return _scaled(mean), _scaled(std)


def _scaled(values: RGB | None) -> RGB | None:
    return None if values is None else _rgb([round(255 * v, 6) for v in values])


def _json(text: str, key: str) -> Any:
    """The value of a key in a JSON object; None where there is none."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content.get(key) if isinstance(content, dict) else None


def _shift(path: Path, state: State, text: str) -> str:
    """A temporal shift or pooling that this package does not have, in words."""
    if any(re.search(r"\blayer\d\.net\.", name) for name in state):
        return POOLING
    if any(re.search(r"\blayer\d\.\d+\.net\.", name) for name in state):
        return (
            "shifts the input of whole blocks (shift_place block), not of their first convolution"
        )
    name = re.search(r"_shift(\d+)_(block(?:res)?)_", path.name)
    div = re.search(r"\bshift_div\s*=\s*(\d+)", text)
    divisor = int((div or name)[1][:9]) if div or name else 8  # type: ignore[index]
    if divisor != 8:
        return f"shifts 1/{divisor} of the channels each way (shift_div {divisor}), here it is 1/8"
    place = re.search(r"\bshift_place\s*=\s*['\"](\w+)['\"]", text)
    if (place and place[1] == "block") or (name and name[2] == "block"):
        return (
            "shifts the input of whole blocks (shift_place block), not of their first convolution"
        )
    if re.search(r"\btemporal_pool\s*=\s*True", text) or re.search(r"_shift\d.*_tpool", path.name):
        return POOLING
    return ""


def _colours_and_strides(text: str) -> str:
    if re.search(r"\bSTRIDE_1X1:\s*true", text, re.IGNORECASE):
        return "has its strides in the 1x1 convolutions (RESNET.STRIDE_1X1), here in the 3x3 ones"
    if re.search(r"\bREVERSE_INPUT_CHANNEL:\s*true|\bto_bgr\s*=\s*True", text, re.IGNORECASE):
        return "takes blue, green, red, here it is red, green, blue"
    return ""
