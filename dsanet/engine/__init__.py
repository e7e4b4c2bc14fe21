"""What turns a network into a training run: settings, loop, checkpoints, processes, evaluation."""

from dsanet.engine.errors import EngineError, UsageError

__all__ = ["EngineError", "UsageError"]
