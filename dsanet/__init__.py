"""DSANet: clip-based video networks and the module that aggregates their snippets.

``build_model(name, num_classes=...)`` is the door; ``list_models()`` tells the names. Importing
this package imports torch and nothing else.
"""

from dsanet.dsa import DSA
from dsanet.errors import ModelError, OptionError
from dsanet.insert import insert_dsa
from dsanet.weights import LoadReport, load_weights
from dsanet.zoo import NetworkConfig, build_model, list_models

__all__ = [
    "DSA",
    "LoadReport",
    "ModelError",
    "NetworkConfig",
    "OptionError",
    "build_model",
    "insert_dsa",
    "list_models",
    "load_weights",
]
