"""Validation during training: one input of U centre snippets and one centre crop per video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from dsanet.engine import execution
from dsanet.engine.config import TrainConfig
from dsanet.engine.errors import EngineError, UsageError
from dsanet.engine.evaluation.accuracy import compute_metrics
from dsanet.engine.evaluation.scoring import Scorer, score_split
from dsanet.engine.launch.distributed import World
from dsanet.engine.report.console import Console
from dsanet.inference import fold_batch_norms, refold
from dsanet.recognizer import Recognizer
from pipelines import EvalLoader, LoaderConfig, Rank
from pipelines.quarantine import QuarantineFile
from shards import Split

TOLERATED = 8  # so many unreadable videos do not fail a validation of at least four times as many
SHOWN = 10


@dataclass(frozen=True)
class PreparedNetwork:
    """A network, its copy with folded batch norms, and that one compiled."""

    model: nn.Module
    folded: nn.Module
    compiled: nn.Module


class Validator:
    """Scores a network on the validation split.

    quarantine: file that lists unreadable videos.

    Raises:
        UsageError: when no video of the split has a label.
    """

    def __init__(
        self,
        config: TrainConfig,
        world: World,
        split: Split,
        precision: str,
        console: Console,
        quarantine: Path | None = None,
    ) -> None:
        if not (split.samples["label"] >= 0).any():
            raise UsageError(
                f"{split.root / split.name}: no video has a label, so validation cannot score it; "
                "give another --validation.split, or null"
            )
        self.quarantine = QuarantineFile(quarantine, split.name)
        self.config, self.world, self.split = config, world, split
        self.precision, self.console = precision, console
        self._network: PreparedNetwork | None = None
        self.loader = self._build_loader(config.loader)

    def _build_loader(self, settings: LoaderConfig) -> EvalLoader:
        config, world = self.config, self.world
        return EvalLoader(
            self.split,
            config.sampling,
            settings,
            batch_size=config.validation.per_gpu or config.batch.per_gpu,
            clips=None,
            crops=1,
            crop_size=config.augment.size,
            # As in the paper, where a crop of 224 is taken from a short side of 256.
            resize_short=round(config.augment.size * 256 / 224),
            rank=Rank(world.rank, world.size, str(world.device)),
        )

    def replace_loader(self, settings: LoaderConfig) -> None:
        """Replace the loader by one with other settings, which never change the samples."""
        self.loader.close()
        self.loader = self._build_loader(settings)

    def _compiled(self, model: nn.Module) -> nn.Module:
        """The network with its batch norms folded, compiled once as long as it is the same object.

        Its weights are those at this call.
        """
        known = self._network
        if known is None or known.model is not model:
            known = self._network = self._prepare(model)
        elif isinstance(model, Recognizer):
            refold(known.folded, model)
        return known.compiled

    def _prepare(self, model: nn.Module) -> PreparedNetwork:
        folded = fold_batch_norms(model) if isinstance(model, Recognizer) else model
        device = self.world.device
        compiled = execution.compiled(folded, self.config.compile, device, lambda _: None)
        return PreparedNetwork(model, folded, compiled)

    def scorer(self, model: nn.Module) -> Scorer:
        """Scores uint8 clips (B, U, T, H, W, 3) with the present weights; sets evaluation mode."""
        model.eval()
        segments: int | None = model.segments  # type: ignore[assignment]
        return Scorer(self._compiled(model), segments, self.precision, self.world.device)

    def run(self, model: nn.Module, epoch: int | None = None) -> dict[str, Any]:
        """Metrics of the network on the validation split, the same on every process.

        Every process must call it. `missing` lists the keys of unreadable videos. They are printed
        with their reasons and listed in the quarantine, as found after `epoch`.

        Raises:
            EngineError: on all processes, when more videos are unreadable than
                `validation.bad_share` allows, or none that can be read has a label.
        """
        self.console.start_progress(len(self.split), lines=False)
        table = score_split(self.scorer(model), self.loader, self.world, self.console)
        self.console.start_progress(0)
        model.train()
        metrics = compute_metrics(table.scores, table.relevant(self.split))
        if table.missing:
            self._report_missing(table.missing, epoch)
            self._check_missing(table.missing, metrics["labelled"])
        return {**metrics, "missing": [self.split.key(video) for video in table.missing]}

    def _describe(self, missing: dict[int, str]) -> str:
        split, reasons = self.split, list(missing.values())
        return (
            f"{split.root / split.name}: {len(missing)} of {len(split)} videos are unreadable and "
            f"not scored: {'; '.join(reasons[:SHOWN])}{' ...' if len(reasons) > SHOWN else ''}"
        )

    def _report_missing(self, missing: dict[int, str], epoch: int | None) -> None:
        if not self.world.main:
            return
        for video, reason in missing.items():
            self.quarantine.add(video, reason, epoch)
        self.console.print(f"WARNING: validation: {self._describe(missing)}")

    def _check_missing(self, missing: dict[int, str], labelled: float | int | None) -> None:
        count, share = len(self.split), self.config.validation.bad_share
        limit = max(int(count * share), min(TOLERATED, count // 4))
        if len(missing) <= limit and labelled:
            return
        path = self.quarantine.path
        raise EngineError(
            f"validation: {self._describe(missing)}; validation.bad_share {share:g} allows {limit} "
            "and at least one must be scored"
            + (f"; the whole list is in {path}" if path else "")
            + "; run tools/shard.py verify, repair the set and run the same command again"
        )

    def close(self) -> None:
        """Release the loader."""
        self.loader.close()
