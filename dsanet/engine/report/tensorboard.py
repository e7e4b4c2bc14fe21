"""TensorBoard files, for those who want them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsanet.engine.errors import UsageError


class Board:
    """Writes every number of a record as a scalar over samples.

    Raises:
        UsageError: when TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError(
                "--log.tensorboard needs TensorBoard: pip install 'dsanet[tensorboard]'"
            ) from error
        self.writer = SummaryWriter(str(folder))

    def add(self, record: dict[str, Any]) -> None:
        """Write a record of metrics.jsonl."""
        for key, value in record.items():
            if isinstance(value, (int, float)) and key != "samples":
                self.writer.add_scalar(f"{record['kind']}/{key}", value, record["samples"])

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()
