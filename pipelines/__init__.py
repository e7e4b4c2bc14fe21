"""Loads batches of uint8 clips from a shard set: plans, reads and decodes them."""

from pipelines.batch import Batch
from pipelines.config import LoaderConfig, RemoteConfig
from pipelines.errors import LoaderError, LoaderUsageError
from pipelines.eval_loader import EvalLoader
from pipelines.plan.crops import AugmentConfig
from pipelines.plan.planner import OrderConfig
from pipelines.plan.sampling import SamplingConfig
from pipelines.rank import Rank
from pipelines.read.remote import open_data
from pipelines.train_loader import TrainLoader

__all__ = [
    "AugmentConfig",
    "Batch",
    "EvalLoader",
    "LoaderConfig",
    "LoaderError",
    "LoaderUsageError",
    "OrderConfig",
    "Rank",
    "RemoteConfig",
    "SamplingConfig",
    "TrainLoader",
    "open_data",
]
