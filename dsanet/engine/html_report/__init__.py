"""The HTML report of finished or running runs: curves, settings, data, scores, videos, kernels."""
