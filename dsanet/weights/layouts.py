"""The tensor names of the code bases whose weights can be loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dsanet.errors import ModelError, printable
from dsanet.recognizer import RGB
from dsanet.weights.files import SHOWN, WeightsFile

State = Mapping[str, Tensor]
Rename = tuple[str, "str | Callable[[re.Match[str]], str]"]

# Where a checkpoint keeps its weights, in order of preference: averaged ones first, as in
# evaluation (`average` is this package's, `state_dict_ema` timm's).
WEIGHTS_KEYS = (
    "average",
    "state_dict_ema",
    "state_dict",
    "model_state",
    "model_state_dict",
    "model",
)
# Prefixes of DDP, torch.compile and Lightning, and a counter of torch's averaged models.
WRAPPERS = re.compile(r"^((module|_orig_mod|model)\.)+")
OF_LIGHTNING = "model."
# Tensors that are not of the network: ImageNet's classifier, input statistics of mmaction2.
NOT_OF_NETWORK = re.compile(r"^(imagenet\.|data_preprocessor\.|n_averaged$)")

CAFFE2_MEAN: RGB = (114.75, 114.75, 114.75)  # 0.45 on a scale of 0 to 1
CAFFE2_STD: RGB = (57.375, 57.375, 57.375)  # 0.225


@dataclass(frozen=True)
class Layout:
    """Tensor names of one code base.

    ``signature``: pattern of a tensor name that only this layout has. ``renames``: substitutions
    (pattern, replacement) that give this package's names. ``inflates``: the file holds a 2-D image
    network, whose kernels are repeated over time. ``shifted``: pattern of a first convolution
    after a temporal shift; None where names do not tell, "" where the code base has no shift.
    ``mean``, ``std``: of its networks' input on a scale of 0 to 255, None where any may be meant.
    """

    name: str
    signature: str
    renames: tuple[Rename, ...] = ()
    inflates: bool = False
    shifted: str | None = None
    mean: RGB | None = None
    std: RGB | None = None


def _stage(match: re.Match[str]) -> str:
    """Stage 2 of the paper is layer1 of torchvision."""
    return f"trunk.layer{int(match[1]) - 1}.{match[2]}."


_DOWN = ((r"\.downsample\.0\.", ".shortcut.conv."), (r"\.downsample\.1\.", ".shortcut.bn."))
_HEAD = (r"^cls_head\.fc_cls\.", "fc.")
_BRANCHES = tuple(
    (rf"\.branch2\.{theirs}\.", f".{ours}.")
    for number, letter in enumerate("abc", start=1)
    for theirs, ours in (
        (letter, f"conv{number}"),
        (f"{letter}_bn", f"bn{number}"),
        (f"conv_{letter}", f"conv{number}"),
        (f"norm_{letter}", f"bn{number}"),
    )
)
_FIRST = r"\.layer\d\.\d+\.conv1\."
OWN = Layout("dsanet", r"^trunk\.conv1\.weight$")
LAYOUTS = (
    OWN,
    Layout(
        "mmaction2",
        r"^backbone\.conv1\.conv\.weight$",
        (
            (r"^backbone\.", "trunk."),
            (r"\.downsample\.(conv|bn)\.", r".shortcut.\1."),
            (r"\.conv1\.conv\.net\.", ".conv1.conv."),
            (r"\.conv(\d)\.conv\.", r".conv\1."),
            (r"\.conv(\d)\.bn\.", r".bn\1."),
            _HEAD,
        ),
        shifted=_FIRST + r"conv\.net\.",
    ),
    Layout(
        "DSANet release",
        r"^backbone\.conv1\.weight$",
        (
            (r"^backbone\.", "trunk."),
            (r"\.block\.", "."),
            (r"\.conv1\.net\.", ".conv1."),
            (r"\.dsa\.", ".mixer."),
            *_DOWN,
            _HEAD,
        ),
        shifted=r"\.layer\d\.\d+\.(block\.)?conv1\.net\.",
    ),
    Layout(
        "TSM release",
        r"^base_model\.conv1\.weight$",
        (
            (r"^base_model\.", "trunk."),
            (r"\.conv1\.net\.", ".conv1."),
            *_DOWN,
            (r"^(new_|trunk\.)fc\.", "fc."),
        ),
        shifted=_FIRST + r"net\.",
    ),
    Layout(
        "PySlowFast",
        r"^s1\.(pathway|s)0_stem\.conv\.weight$",
        (
            (r"^s1\.(?:pathway|s)0_stem\.conv\.", "trunk.conv1."),
            (r"^s1\.(?:pathway|s)0_stem\.bn\.", "trunk.bn1."),
            (r"^s([2-5])\.pathway0_res(\d+)\.", _stage),
            (r"\.branch1\.", ".shortcut.conv."),
            (r"\.branch1_bn\.", ".shortcut.bn."),
            *_BRANCHES,
            (r"^head\.projection\.", "fc."),
        ),
        shifted="",
        mean=CAFFE2_MEAN,
        std=CAFFE2_STD,
    ),
    Layout(
        "pytorchvideo",
        r"^blocks\.0\.conv\.weight$",
        (
            (r"^blocks\.0\.conv\.", "trunk.conv1."),
            (r"^blocks\.0\.norm\.", "trunk.bn1."),
            (r"^blocks\.([1-4])\.res_blocks\.(\d+)\.", r"trunk.layer\1.\2."),
            (r"\.branch1_conv\.", ".shortcut.conv."),
            (r"\.branch1_norm\.", ".shortcut.bn."),
            *_BRANCHES,
            (r"^blocks\.5\.proj\.", "fc."),
        ),
        shifted="",
        mean=CAFFE2_MEAN,
        std=CAFFE2_STD,
    ),
    Layout(
        "torchvision ImageNet",
        r"^conv1\.weight$",
        ((r"^fc\.", "imagenet."), (r"^(?!imagenet\.)", "trunk."), *_DOWN),
        inflates=True,
    ),
)


def weights_of(file: WeightsFile) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict in a file without the prefixes of wrappers, and the names that were left out.

    Raises:
        ModelError: when there is none, or it holds something else than tensors.
    """
    content = file.content
    if isinstance(content, dict):
        inner = (content.get(key) for key in WEIGHTS_KEYS)
        content = next((state for state in inner if isinstance(state, dict) and state), content)
    if not isinstance(content, dict) or not content:
        raise ModelError(f"{file.path}: has no state_dict (a mapping of names to tensors)")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ModelError(
                f"{file.path}: has no state_dict (a mapping of names to tensors): "
                f"{printable(name, SHOWN)} is of type {type(value).__name__}"
            )
    return _unwrapped(content, file)


def _unwrapped(
    content: Mapping[str, Tensor], file: WeightsFile
) -> tuple[dict[str, Tensor], list[str]]:
    """Strip the prefixes of DDP, torch.compile and Lightning.

    A Lightning module may have tensors besides its network's, of a loss or a metric.
    """
    is_lightning = isinstance(file.content, dict) and "pytorch-lightning_version" in file.content
    state: dict[str, Tensor] = {}
    left_out = []
    for name, tensor in content.items():
        if is_lightning and not name.startswith(OF_LIGHTNING):
            left_out.append(name)
            continue
        short = WRAPPERS.sub("", name)
        if short in state:
            raise ModelError(f"{file.path}: has two tensors named {printable(short, SHOWN)}")
        state[short] = tensor
    return state, left_out


def recognise(state: State, file: WeightsFile) -> Layout:
    """The layout of a state dict.

    Raises:
        ModelError: when it is not known.
    """
    for layout in LAYOUTS:
        if any(re.match(layout.signature, name) for name in state):
            return layout
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise ModelError(
        f"{file.path}: unknown layout, with tensors {shorten(list(state))}; known layouts: {known}"
    )


def renamed(state: State, layout: Layout, file: WeightsFile) -> dict[str, Tensor]:
    """The tensors under this package's names.

    Raises:
        ModelError: when two of them get one name.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        ours = name
        for pattern, replacement in layout.renames:
            ours = re.sub(pattern, replacement, ours)
        if ours in result:
            raise ModelError(f"{file.path}: has two tensors for {printable(ours, SHOWN)}")
        result[ours] = tensor
    return result


def shorten(names: Any, limit: int = 3) -> str:
    """The first names of a list, and how many more there are."""
    shown = ", ".join(printable(name, SHOWN) for name in list(names)[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
