"""Plain networks of other code bases, and files with their weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file with torch.save."""

    def run(content: Any, name: str = "weights.pth", **options: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path, **options)
        return path

    return run
