"""Loads pretrained weights: reads the file, recognises its layout, renames and inflates tensors."""

from dsanet.weights.load import LoadReport, load_weights, normalisation_of

__all__ = ["LoadReport", "load_weights", "normalisation_of"]
