"""tools/report.py on real runs, and the page in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.scripts import eval_here, run_script

CHROMIUM = next(
    (p for p in ("chromium", "chromium-browser", "google-chrome") if shutil.which(p)), ""
)


@pytest.fixture(scope="module")
def page(small_shards: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two runs, one of which has scores."""
    folder = tmp_path_factory.mktemp("report")
    scored, bare = (shutil.copytree(trained, folder / name) for name in ("scored", "bare"))
    assert eval_here("--data", small_shards, "--checkpoint", scored, "--clips", 2) == 0
    done = run_script("tools/report.py", scored, bare, "--out", folder / "r.html", "--videos", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(folder / "r.html") in done.stdout
    return folder / "r.html"


def test_the_page_has_scores_videos_kernels_settings_and_commands(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(re.findall('<article class="video">', text)) == 4
    assert "Kernel of trunk.layer" in text
    assert "Videos of each class" in text
    assert "train.py --data" in text
    assert "optim.lr" in text
    assert page.stat().st_size < 3e6


@pytest.mark.skipif(not CHROMIUM, reason="needs chromium: apt-get install chromium")
def test_a_browser_shows_it_without_an_error(page: Path, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    words = ("--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr")
    command = (CHROMIUM, *words, f"--user-data-dir={tmp_path}/profile", "--window-size=1000,3000")
    done = subprocess.run(
        [*command, f"--screenshot={picture}", page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert picture.is_file(), done.stderr
    assert ":CONSOLE" not in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("nowhere",), 2, "nowhere is not a run folder"),
        (("RUN", "RUN"), 2, "given twice"),
        (("RUN", "--videos", -1), 2, "videos must be at least 0, got -1"),
        (("RUN", "--videos", 0, "--out", "/proc/r.html"), 1, "/proc/r.html: cannot be written"),
    ],
)
def test_a_mistake_is_one_line(
    words: tuple[object, ...], code: int, text: str, trained: Path
) -> None:
    done = run_script("tools/report.py", *(trained if word == "RUN" else word for word in words))
    assert done.returncode == code, done.stdout + done.stderr
    [line] = done.stderr.splitlines()
    assert text in line
