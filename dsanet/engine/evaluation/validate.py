"""Validation during training: one input of U centre snippets and one centre crop per video."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dsanet.engine import execution
from dsanet.engine.config import TrainConfig
from dsanet.engine.evaluation.accuracy import compute_metrics
from dsanet.engine.evaluation.scoring import Scorer, score_split
from dsanet.engine.launch.distributed import World
from dsanet.engine.report.console import Console
from pipelines import EvalLoader, Rank
from shards import Split


class Validator:
    """Scores a network on the validation split."""

    def __init__(
        self, config: TrainConfig, world: World, split: Split, precision: str, console: Console
    ) -> None:
        self.config, self.world, self.split = config, world, split
        self.precision, self.console = precision, console
        self._network: tuple[nn.Module, nn.Module] | None = None
        self.loader = EvalLoader(
            split,
            config.sampling,
            config.loader,
            batch_size=config.validation.per_gpu or config.batch.per_gpu,
            clips=None,
            crops=1,
            crop_size=config.augment.size,
            # As in the paper, where a crop of 224 is taken from a short side of 256.
            resize_short=round(config.augment.size * 256 / 224),
            rank=Rank(world.rank, world.size, str(world.device)),
        )

    def _compiled(self, model: nn.Module) -> nn.Module:
        """The network, compiled once as long as it is the same object."""
        if self._network is None or self._network[0] is not model:
            network = execution.compiled(
                model, self.config.compile, self.world.device, lambda _: None
            )
            self._network = (model, network)
        return self._network[1]

    def _scorer(self, model: nn.Module) -> Scorer:
        segments: int | None = model.segments  # type: ignore[assignment]
        return Scorer(self._compiled(model), segments, self.precision, self.world.device)

    def run(self, model: nn.Module) -> dict[str, Any]:
        """Metrics of the network on the validation split, the same on every process.

        Every process must call it.
        """
        model.eval()
        self.console.start_progress(len(self.split), lines=False)
        table = score_split(self._scorer(model), self.loader, self.world, self.console)
        self.console.start_progress(0)
        model.train()
        return compute_metrics(table.scores, table.relevant(self.split))

    def score_batch(self, model: nn.Module, clips: Tensor) -> None:
        """Score one batch of uint8 clips (B, U, T, H, W, 3), to find out whether it works."""
        model.eval()
        self._scorer(model)(clips)

    def close(self) -> None:
        """Release the loader."""
        self.loader.close()
