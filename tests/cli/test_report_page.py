"""The demo's report: charts and tables as one HTML file that loads nothing."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from griffin_core.demo import charts, page
from griffin_core.demo.charts import Series


def test_chart_is_well_formed_and_inside_its_frame() -> None:
    loss = Series("train <loss>", [(1.0, 5.5), (50.0, 2.0), (100.0, 1.5)])
    level = Series("xz & co", [(0.0, 2.37)])
    root = ElementTree.fromstring(charts.line_chart([loss, level], "step", "bits", "Loss & more"))
    (line,) = [e for e in root.iter() if e.tag == "polyline"]
    points = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert len(points) == 3
    assert points[0][0] == charts.LEFT
    assert points[-1][0] == charts.WIDTH - charts.RIGHT
    heights = [y for _, y in points]
    assert heights == sorted(heights), "a falling loss goes down the page"
    assert all(charts.TOP <= y <= charts.HEIGHT - charts.BOTTOM for y in heights)
    texts = [e.text for e in root.iter() if e.tag == "text"]
    assert {"train <loss>", "xz & co", "step", "bits"} <= set(texts)
    dashed = [e for e in root.iter() if "stroke-dasharray" in e.attrib]
    assert len(dashed) == 1


def test_labels_that_would_overlap_are_moved_apart() -> None:
    assert charts._spread([100.0, 101.0, 50.0]) == [100.0, 115.0, 50.0]


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0.0, 10.0, [0, 2, 4, 6, 8, 10]),
        (1.9, 2.6, [2.0, 2.2, 2.4, 2.6]),
        (3.0, 3.0, [3.0]),
        (-1.0, 1.0, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, wanted: list[float]) -> None:
    assert charts.ticks(low, high) == pytest.approx(wanted)


def test_a_chart_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        charts.line_chart([Series("level", [(0.0, 1.0)])], "x", "y", "empty")


def test_page_is_one_file_and_escapes_what_it_shows() -> None:
    rows = [["<b>scan</b>", 1.5, True], ["rg_lru", 2, False]]
    html = page.page("Report & more", [("Kernels", page.table(["name", "GB/s", "held"], rows))], page.text_block("a<b"))
    assert "<b>scan" not in html
    assert "&lt;b&gt;scan&lt;/b&gt;" in html
    assert "<pre>a&lt;b</pre>" in html
    assert html.count('class="number"') == 3
    assert '<span class="good">passed</span>' in html
    assert '<span class="bad">FAILED</span>' in html
    assert not re.search(r"(?:src|href)=|@import|url\(", html)
    ElementTree.fromstring(
        html.partition("\n")[2].replace('<meta charset="utf-8">', "").replace('initial-scale=1">', 'initial-scale=1"/>')
    )
