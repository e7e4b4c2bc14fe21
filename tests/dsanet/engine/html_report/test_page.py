"""The page: text from files is never markup, and older runs are shown too."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from dsanet.engine.html_report.page import render
from dsanet.engine.html_report.run import read_runs
from tests.dsanet.engine.html_report.test_run import add_evaluation, make_run

HOSTILE = '<script>alert(1)</script><img src="http://x/y" onerror=alert(1)>'


class Elements(HTMLParser):
    """Collects the elements of a page, and the ids."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self.ids += [value or "" for name, value in attrs if name == "id"]


def test_text_of_files_is_escaped_and_nothing_is_fetched(tmp_path: Path) -> None:
    add_evaluation(make_run(tmp_path / "a"))
    [run] = read_runs([tmp_path / "a"], None)
    run.config["weights"] = HOSTILE
    run.warnings.append(HOSTILE)
    run.quarantine.append({"split": "train", "id": 1, "reason": HOSTILE})
    run.starts.append({"command": ["python", HOSTILE], "time": HOSTILE, "versions": {"a": HOSTILE}})
    elements = Elements(render([replace(run, name=HOSTILE)], [], "1"))
    assert "script" not in elements.tags
    assert "img" not in elements.tags
    assert all(link.startswith("#") for link in elements.links)
    assert {link[1:] for link in elements.links if link} <= set(elements.ids)
    assert len(elements.ids) == len(set(elements.ids))


def test_a_run_that_has_only_begun_is_shown(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    for name in ("metrics.jsonl", "environment.json"):
        (tmp_path / "a" / name).unlink()
    page = render(read_runs([tmp_path / "a"], None), [], "1")
    assert "No step has been recorded yet." in page
    assert "No evaluation in these run folders" in page


def test_two_runs_stand_side_by_side(tmp_path: Path) -> None:
    for name in ("tsn", "dsa"):
        add_evaluation(make_run(tmp_path / name))
    page = render(read_runs([tmp_path / "tsn", tmp_path / "dsa"], None), [], "1")
    assert "Accuracy of each class, tsn → dsa" in page
    assert "Validation top-1" in page
