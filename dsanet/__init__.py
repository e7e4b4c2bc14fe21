"""DSANet: clip-based video networks and the module that aggregates their snippets.

`build_model(name, num_classes=...)` makes a network and `list_models()` lists the names. Names are
imported when they are first used, so that `dsanet.errors` is available without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dsanet.errors import ModelError, OptionError, UserError

if TYPE_CHECKING:
    from dsanet.dsa import DSA
    from dsanet.insert import insert_dsa
    from dsanet.weights import LoadReport, load_weights
    from dsanet.zoo import NetworkConfig, build_model, list_models

__all__ = [
    "DSA",
    "LoadReport",
    "ModelError",
    "NetworkConfig",
    "OptionError",
    "UserError",
    "build_model",
    "insert_dsa",
    "list_models",
    "load_weights",
]

_MODULES = {
    "DSA": "dsa",
    "insert_dsa": "insert",
    "LoadReport": "weights",
    "load_weights": "weights",
    "NetworkConfig": "zoo",
    "build_model": "zoo",
    "list_models": "zoo",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'dsanet' has no attribute {name!r}")
    return getattr(import_module(f"dsanet.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
