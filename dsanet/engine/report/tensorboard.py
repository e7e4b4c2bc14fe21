"""Optional TensorBoard files (`log.tensorboard`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsanet.engine.errors import UsageError


class TensorBoardWriter:
    """Writes the numbers of records as TensorBoard scalars over samples.

    Raises:
        UsageError: when TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError(
                "log.tensorboard: TensorBoard is not installed; pip install 'dsanet[tensorboard]'"
            ) from error
        self.writer = SummaryWriter(str(folder))

    def add(self, record: dict[str, Any]) -> None:
        """Add the numbers of a record of metrics.jsonl."""
        for key, value in record.items():
            if isinstance(value, (int, float)) and key != "samples":
                self.writer.add_scalar(f"{record['kind']}/{key}", value, record["samples"])

    def close(self) -> None:
        """Write out what is buffered."""
        self.writer.close()
