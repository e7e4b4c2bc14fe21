"""Shards in, U x T x H x W tensors out: plan, read, decode. Knows nothing of training."""

from pipelines.batch import Batch
from pipelines.config import LoaderConfig
from pipelines.crops import AugmentConfig
from pipelines.errors import LoaderError, LoaderUsageError
from pipelines.eval_loader import EvalLoader
from pipelines.loader import TrainLoader
from pipelines.plan import OrderConfig
from pipelines.sampling import SamplingConfig
from pipelines.staging import open_data

__all__ = [
    "AugmentConfig",
    "Batch",
    "EvalLoader",
    "LoaderConfig",
    "LoaderError",
    "LoaderUsageError",
    "OrderConfig",
    "SamplingConfig",
    "TrainLoader",
    "open_data",
]
