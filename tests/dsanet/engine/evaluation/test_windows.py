"""Multi-scale temporal window integration against a plain loop, on real untrimmed video too."""

from __future__ import annotations

import io
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dsanet.engine.evaluation.accuracy import compute_metrics, softmax
from dsanet.engine.evaluation.scoring import Scorer, ScoreTable, merge_tables
from dsanet.engine.evaluation.windows import integrate, score_windows
from dsanet.engine.launch.distributed import World
from dsanet.engine.report.console import Console
from pipelines import LoaderConfig, Rank, SamplingConfig
from pipelines.window_loader import WindowLoader
from shards import ShardSettings, Split, build_split, open_split
from shards.annotations import read_list

REAL = Path(__file__).resolve().parents[5] / "shared" / "data" / "overhead_untrimmed"
SAMPLING = SamplingConfig(segments=2, frames=2, stride=4)
CLASSES = 11
SIDE = 48


class Colours(nn.Module):
    """Logits that depend on the order of U = 2 snippets, by the mean colours of their quarters."""

    segments = 2

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = torch.randn(2 * 2 * 4 * 3, CLASSES, generator=generator) / 20

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 (B, 2, 2, S, S, 3) -> logits (B, CLASSES)."""
        half = clips.shape[3] // 2
        quarters = clips.float().unflatten(4, (2, half)).unflatten(3, (2, half)).mean((4, 6))
        return quarters.flatten(1) @ self.weights


def slow_integration(scores: list[list[float]], scales: list[int]) -> list[float]:
    """TSN's pooling for each class: the best of each length, then the mean over lengths."""
    result = []
    for c in range(len(scores[0])):
        means = []
        for scale in sorted(set(scales)):
            best = sorted((s[c] for s, n in zip(scores, scales, strict=True) if n == scale),
                          reverse=True)  # fmt: skip
            best = best[: max(15, len(best) // 4)]
            means.append(sum(best) / len(best))
        result.append(sum(means) / len(means))
    return result


@pytest.mark.parametrize("counts", [(1, 1, 1, 1, 1), (90, 45, 22, 11, 5), (16, 1, 0, 0, 60)])
def test_the_pooling_against_a_loop(counts: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    scales = rng.permutation(np.repeat(np.arange(5), counts))
    scores = rng.normal(size=(len(scales), 4)).astype(np.float32)
    expected = slow_integration(scores.tolist(), scales.tolist())
    np.testing.assert_allclose(integrate(scores, scales), expected, rtol=1e-5)


@pytest.fixture(scope="module")
def untrimmed(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """The recordings of the validation subset, as shards with a short side of 64."""
    if not REAL.is_dir():
        pytest.skip(f"no real video at {REAL}")
    out = tmp_path_factory.mktemp("untrimmed")
    listing = read_list("activitynet", REAL / "videos", REAL / "annotations.json", (), split="val")
    settings = ShardSettings(short_side=64, workers=1)
    assert build_split(listing.sources, out, "val", listing.classes, settings).exit_code == 0
    return open_split(out, "val")


def scored(split: Split, rank: int = 0, world: int = 1, batch: int = 3) -> list[ScoreTable]:
    loader = WindowLoader(
        split, SAMPLING, LoaderConfig(threads=1), crops=3, crop_size=SIDE, resize_short=SIDE,
        rank=Rank(rank, world, "cpu"),
    )  # fmt: skip
    scorer = Scorer(Colours(), 2, "fp32", torch.device("cpu"))
    tables = list(
        score_windows(scorer, loader, World(rank, world), Console(enabled=False),
                      np.arange(len(split)), classes=CLASSES, batch=batch)
    )  # fmt: skip
    loader.close()
    return tables


def decoded(split: Split, video: int) -> list[np.ndarray]:
    """All frames (H, W, 3) of a stored video, by Pillow."""
    row = split.samples[video]
    table = split.frames[int(row["first_frame"]) :][: int(row["num_frames"])]
    data = split.tar_path(video).read_bytes()[int(row["offset"]) :]
    jpegs = [data[int(f["offset"]) :][: int(f["size"])] for f in table]
    return [np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")) for jpeg in jpegs]


def slow_windows(frames: list[np.ndarray], fps: float) -> tuple[list[list[float]], list[int]]:
    """Logits of all windows of a video, each cut, resized and scored by itself."""
    network, scores, scales = Colours(), [], []
    for scale, seconds in enumerate((1, 2, 4, 8, 16)):
        width = min(len(frames), round(seconds * fps))
        start = 0
        while True:
            start = min(start, len(frames) - width)
            picks = slow_snippets(width)
            clip = np.stack([frames[start + pick] for pick in picks])
            crops = [resized(clip, at) for at in (0.0, 0.5, 1.0)]
            logits = network(torch.stack(crops).unflatten(1, (2, 2)))
            scores.append(logits.mean(0).tolist())
            scales.append(scale)
            if start + width == len(frames):
                break
            start += -(-4 * width // 5)
    return scores, scales


def slow_snippets(width: int) -> list[int]:
    """Two frames, 4 apart, in a centred window of 8 in each half."""
    half = width // 2
    if half < 8:
        pytest.fail("the windows of this test hold whole snippets")
    bounds = [0, half, width]
    starts = [low + (high - low - 8 + 1) // 2 for low, high in itertools.pairwise(bounds)]
    return [start + 4 * t for start in starts for t in range(2)]


def resized(clip: np.ndarray, position: float) -> Tensor:
    """One of the crops along the longer side, (T, SIDE, SIDE, 3)."""
    height, width = clip.shape[1:3]
    left = int((width - height) * position)
    crop = torch.from_numpy(clip[:, :, left : left + height]).permute(0, 3, 1, 2)
    small = nn.functional.interpolate(crop, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return small.permute(0, 2, 3, 1)


def test_an_untrimmed_recording_against_a_loop(untrimmed: Split) -> None:
    [table] = scored(untrimmed)
    frames = decoded(untrimmed, 0)
    scores, scales = slow_windows(frames, float(untrimmed.samples["fps"][0]))
    expected = slow_integration(scores, scales)
    np.testing.assert_allclose(table.scores[0], expected, atol=0.005)
    assert np.ptp(expected) > 10
    assert len(set(scales)) == 5
    assert table.ids.tolist() == [0]
    assert table.ranks.shape == (1, 0)


def test_the_windows_of_a_pass_do_not_change_a_score(untrimmed: Split) -> None:
    one, many = (scored(untrimmed, batch=batch)[0].scores for batch in (1, 16))
    np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def damaged(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Split:
    """The small validation split, whose video 3 is all zeros."""
    out = tmp_path_factory.mktemp("damaged")
    shutil.copytree(small_shards / "val", out / "val")
    split = open_split(out, "val")
    with split.tar_path(3).open("r+b") as file:
        file.seek(int(split.samples["offset"][3]))
        file.write(bytes(int(split.samples["size"][3])))
    return split


def test_processes_yield_equally_many_rows_and_name_what_is_broken(damaged: Split) -> None:
    alone = merge_tables(World(), scored(damaged))
    assert alone.ids.tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert list(alone.missing) == [3]
    assert "CRC32" in alone.missing[3]
    parts = [scored(damaged, rank, 3) for rank in range(3)]
    assert [len(part) for part in parts] == [3, 3, 3]
    together = merge_tables(World(), [table for part in parts for table in part])
    np.testing.assert_array_equal(together.ids, alone.ids)
    np.testing.assert_allclose(together.scores, alone.scores, rtol=1e-5)
    np.testing.assert_array_equal(together.labels, damaged.samples["label"][alone.ids])


def test_the_map_of_several_videos_against_its_definition(damaged: Split) -> None:
    table = merge_tables(World(), scored(damaged))
    relevant = table.relevant(damaged)[:, :4]
    scores = table.scores[:, :4]
    areas = []
    for c in range(4):
        ranked = sorted(range(len(scores)), key=lambda i: (-softmax(scores)[i, c], relevant[i, c]))
        flags = [bool(relevant[i, c]) for i in ranked]
        precisions = [sum(flags[: n + 1]) / (n + 1) for n in range(len(flags))]
        best = [max(precisions[n:]) for n in range(len(flags)) if flags[n]]
        areas.append(sum(best) / len(best))
    assert compute_metrics(scores, relevant)["map"] == pytest.approx(sum(areas) / 4)
