"""The content of a valid checkpoint, for tests that change a part of it."""

from __future__ import annotations

from typing import Any

from dsanet import NetworkConfig, build_model
from dsanet.engine.config import plain
from dsanet.engine.run_state import FORMAT
from pipelines import SamplingConfig

OPTIONS = {"width": 16, "blocks": (1, 1, 1, 1), "every": 1}
CLASSES = ["run", "jump", "swim"]


def checkpoint_content(**changed: Any) -> dict[str, Any]:
    """A checkpoint of a small DSA network, with other values of some keys."""
    sampling = SamplingConfig(segments=4, frames=2, stride=2)
    content = {
        "format": FORMAT,
        "score": 0.5,
        "samples": 8,
        "validated": 1,
        "model": None,
        "average": None,
        "optimizer": {"state": {}, "param_groups": []},
        "scaler": {},
        "precision": "fp32",
        "config": {
            "model": "dsa_i3d_r18",
            "network": plain(NetworkConfig(**OPTIONS)),
            "sampling": plain(sampling),
            "augment": {"size": 32},
        },
        "classes": CLASSES,
        "videos": 8,
        "shards": {"short_side": 64, "fps": 30},
        "versions": {},
        "readers": None,
        "data": None,
    }
    if "model" not in changed:
        model = build_model("dsa_i3d_r18", num_classes=len(CLASSES), **OPTIONS)
        content["model"] = model.state_dict()
    return content | changed
