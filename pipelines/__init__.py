"""Shards in, U x T x H x W tensors out: plan, read, decode. Knows nothing of training."""

from pipelines.batch import Batch
from pipelines.config import LoaderConfig
from pipelines.errors import LoaderError, LoaderUsageError
from pipelines.eval_loader import EvalLoader
from pipelines.plan.crops import AugmentConfig
from pipelines.plan.planner import OrderConfig
from pipelines.plan.sampling import SamplingConfig
from pipelines.read.staging import open_data
from pipelines.train_loader import TrainLoader

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
