"""The goals for one H100, what was measured of them, and what each figure says to do next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Rows = list[dict[str, Any]]
Results = dict[str, Rows]  # part -> its rows


@dataclass(frozen=True)
class Goal:
    """A figure to reach.

    Attributes:
        name, wanted, unit: as in the table.
        at_least: whether more is better.
        find: the figure in the results, or None.
        met, missed: what to do next; `missed` may depend on the results.
    """

    name: str
    wanted: float
    unit: str
    at_least: bool
    find: Callable[[Results], float | None]
    met: str
    missed: Callable[[Results], str]

    def row(self, results: Results, toy: bool) -> dict[str, Any]:
        """The line of the table; at toy sizes a figure has no verdict."""
        value = self.find(results)
        row = {"goal": self.name, "wanted": self.wanted, "measured": value, "unit": self.unit}
        if value is None:
            return row | {
                "verdict": "not measured",
                "next": "run the part again with more --minutes",
            }
        if toy:
            return row | {"verdict": "toy sizes", "next": "run this on a GPU"}
        met = value >= self.wanted if self.at_least else value <= self.wanted
        step = self.met if met else self.missed(results)
        return row | {"verdict": "met" if met else "missed", "next": step}


def value(results: Results, part: str, key: str, **wanted: Any) -> Any:
    """`key` of the last row of a part that has it, and the wanted values."""
    for row in reversed(results.get(part, [])):
        if key in row and all(row.get(name) == text for name, text in wanted.items()):
            return row[key]
    return None


def best_ratio(results: Results) -> float | None:
    """From shards, of the better place to decode."""
    ratios = [row["ratio"] for row in results.get("loop", []) if row.get("ratio") is not None]
    return max(ratios) if ratios else None


def over_tsn(results: Results) -> float | None:
    """Percent by which the step with DSA takes longer than that of TSN."""
    change = value(results, "variants", "over_baseline", what="TSN, without DSA")
    return None if change is None else 100 * (1 / (1 + change) - 1)


ADVICE = {
    "convolution": "convolutions: compare fp16, batch 64 and max-autotune in part variants",
    "matrix product": "products: compare conv_1x1_as_mm and max-autotune in part variants",
    "BN statistics": "BN statistics: compute them in the convolutions that write the maps",
    "elementwise": "passes over the maps: compare loop_reindexing_after_fusion off",
    "other reductions": "reductions: find what they reduce in part step",
    "copy": "copies: find the kernels named copy or cat in part step",
    "layout change": "layout changes: a map is not channels_last; find its kernel in part step",
    "optimizer": "the optimiser: check that it is the fused one",
}


def slowest_kind(results: Results) -> str:
    """What to do about the kind of kernels that takes longest, and about the best variant."""
    sums = [row for row in results.get("step", []) if row.get("what") == "sum"]
    words = []
    if sums:
        top = max(sums, key=lambda row: row["ms"])
        kind = top["kind"].partition(",")[0]
        advice = ADVICE.get(kind, f"kernels of kind {kind}: see their names in part step")
        words.append(f"{top['share']:.0%} of the kernels' time is {advice}")
    faster = [
        row
        for row in results.get("variants", [])
        if row.get("over_baseline", 0) < -0.01 and "TSN" not in row["what"]
    ]
    if faster:
        best = min(faster, key=lambda row: row["over_baseline"])
        words.append(f"{best['what']} takes {-best['over_baseline']:.0%} less time per video")
    return "; ".join(words) or "run part step for the kernels"


def slowest_stage(results: Results) -> str:
    """What the loop waited for."""
    verdict = value(results, "loop", "verdict")
    return f"{verdict}; compare the rows of part rates, and set --loader.threads and decode_on"


def _always(text: str) -> Callable[[Results], str]:
    return lambda _: text


GOALS = (
    Goal("training step, T = 4", 420, "videos/s", True,
         lambda r: value(r, "step", "videos_per_second", what="training step"),
         "write the figure down", slowest_kind),
    Goal("training step, T = 8", 210, "videos/s", True,
         lambda r: value(r, "variants", "videos_per_second", what="T = 8, batch 16")
         or value(r, "variants", "videos_per_second", what="T = 8"),
         "write the figure down", slowest_kind),
    Goal("from shards / synthetic", 0.97, "", True, best_ratio,
         "keep the better decode_on as the default", slowest_stage),
    Goal("evaluation, 8 clips x 3 crops", 200, "videos/s", True,
         lambda r: value(r, "evaluation", "videos_per_second", case="from shards"),
         "write the figure down",
         _always("compare its row with `network alone`: if that is fast enough, the loader is "
                 "slow, else fold BN and try batch 16")),
    Goal("memory at batch 32", 22, "GiB", False,
         lambda r: value(r, "step", "peak_gib", what="training step"),
         "a larger batch fits: see batch 64 and 96 in part variants",
         _always("take a memory snapshot of a step, and look for maps kept in fp32")),
    Goal("DSA over TSN", 2, "% of time", False, over_tsn, "write the figure down",
         _always("compare the kernels of both networks: DSA's means and multiply-adds should be "
                 "fused into those beside them")),
)  # fmt: skip


def goals_table(results: Results, toy: bool) -> list[dict[str, Any]]:
    """One row for each goal."""
    return [goal.row(results, toy) for goal in GOALS]
