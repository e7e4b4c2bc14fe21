"""Charts: SVG that stands alone in a page."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from dsanet.engine.html_report.charts import Line, line_chart

LINES = [Line("tsn", [1, 2], [0.5, 0.25], "#123456"), Line("dsa", [1, 2], [1, 2], "#654321")]


def test_a_chart_is_one_svg_element_in_the_colours_of_the_page() -> None:
    svg = line_chart("Training loss", "epoch", LINES, y_limits=(0, None))
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    assert root.get("role") == "img"
    assert root.get("aria-label") == "Training loss"
    assert "currentColor" in svg
    assert "#010203" not in svg
    assert {"tsn", "dsa", "epoch"} <= {element.text for element in root.iter()}
    assert "#123456" in svg


def test_ids_of_two_charts_differ_and_references_resolve() -> None:
    charts = [line_chart(title, "epoch", LINES, y_limits=None) for title in ("Loss", "Rate")]
    ids = [
        {e.get("id") for e in ElementTree.fromstring(svg).iter() if e.get("id")} for svg in charts
    ]
    assert ids[0]
    assert not ids[0] & ids[1]
    for svg, known in zip(charts, ids, strict=True):
        for element in ElementTree.fromstring(svg).iter():
            for name, value in element.attrib.items():
                if name.endswith("href"):
                    assert value.removeprefix("#") in known
                if value.startswith("url(#"):
                    assert value[5:-1] in known


def test_nothing_to_draw_is_no_chart() -> None:
    assert line_chart("Loss", "epoch", [Line("a", [], [], "red")], y_limits=None) == ""
