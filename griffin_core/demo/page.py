"""The report as one HTML file: figures, charts and tables, no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from griffin_core.cli.console import cell_text

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; }
pre { background: var(--soft); padding: .8rem; overflow-x: auto; white-space: pre-wrap; }
.chart { width: 100%; height: auto; } .chart text { font-size: 12px; fill: currentColor; }
.chart .grid { stroke: var(--line); } .chart .axis { stroke: currentColor; }
.good { color: #2e7d32; } .bad { color: #c62828; font-weight: 600; }
.note { opacity: .75; font-size: .9rem; }
"""


def page(title: str, sections: Sequence[tuple[str, str]], lead: str) -> str:
    """A whole HTML document.

    Args:
        title: plain text.
        sections: (heading, HTML) pairs.
        lead: HTML under the title.
    """
    body = "\n".join(f"<section>\n<h2>{escape(heading)}</h2>\n{html}\n</section>" for heading, html in sections)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{lead}\n{body}\n</body>\n</html>\n"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """An HTML table; columns of numbers are set to the right, truth values become marks."""
    numeric = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    head = "".join(f"<th{_kind(n)}>{escape(name)}</th>" for name, n in zip(columns, numeric, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{_kind(n)}>{_cell(c)}</td>" for c, n in zip(row, numeric, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def facts(pairs: Mapping[str, Any]) -> str:
    """A two-column table of named facts."""
    return table(["what", "value"], [[name, value] for name, value in pairs.items()])


def text_block(text: str) -> str:
    """Preformatted text, escaped."""
    return f"<pre>{escape(text)}</pre>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{f' class={kind!r}' if kind else ''}>{escape(text)}</p>"


def mark(good: bool, yes: str = "passed", no: str = "FAILED") -> str:
    """A coloured word."""
    return f'<span class="{"good" if good else "bad"}">{escape(yes if good else no)}</span>'


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(numeric: bool) -> str:
    return ' class="number"' if numeric else ""


def _cell(value: object) -> str:
    return mark(value) if isinstance(value, bool) else escape(cell_text(value))
