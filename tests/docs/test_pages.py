"""The pages do not drift: their Python runs, their commands parse, their tables are the code's."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from griffin_core import cli, env
from griffin_core.layouts import keras, official
from griffin_core.testing import laws, properties

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
FENCE = re.compile(r"^```(\w+)?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r'title="([^"]+)"')
LINK = re.compile(r"\]\(([^)#:]+)(?:#[\w-]+)?\)")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, the file it is to be saved as, its text."""

    language: str
    title: str | None
    text: str


def blocks(page: Path) -> list[Block]:
    found = []
    for language, rest, text in FENCE.findall(page.read_text(encoding="utf-8")):
        title = TITLE.search(rest)
        found.append(Block(language, title.group(1) if title else None, text))
    return found


def commands(page: Path) -> list[list[str]]:
    lines = [line for b in blocks(page) if b.language == "console" for line in b.text.replace("\\\n", " ").splitlines()]
    return [shlex.split(line) for line in lines if line.strip()]


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(b.language == "python" and not b.title for b in blocks(p))], ids=page_id
)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    """In order, in one process; blocks with a title are saved under it first."""
    script = []
    for block in blocks(page):
        if block.title:
            (tmp_path / block.title).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            script.append(block.text)
    (tmp_path / "page.py").write_text("\n".join(script), encoding="utf-8")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=200, check=False
    )
    assert run.returncode == 0, run.stderr


def test_there_is_python_in_the_pages() -> None:
    running = [page_id(p) for p in PAGES if any(b.language == "python" and not b.title for b in blocks(p))]
    assert {"README.md", "docs/quickstart.md", "docs/verify-a-kernel.md", "docs/add-a-kernel.md"} <= set(running)


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=page_id)
def test_commands_parse(page: Path) -> None:
    """Verbs, options and make targets that the pages name exist."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words in commands(page):
        while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
            name = words.pop(0).partition("=")[0]
            assert not name.startswith(env.PREFIX) or name in {v.name for v in env.VARIABLES}
        if words[:1] == ["make"]:
            assert {w for w in words[1:] if "=" not in w} <= targets, words
        elif words[:1] == ["griffin"]:
            app = cli.build_app(words[1])
            app.parse_args(words[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    targets = LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    assert [t for t in targets if not (page.parent / t).exists()] == []


def test_the_page_on_the_environment_is_the_table_in_the_code() -> None:
    text = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith(("| `GRIFFIN_", "| `KERAS_"))]
    assert rows == [_row(variable) for variable in env.VARIABLES]


def _row(variable: env.Variable) -> str:
    values = ", ".join(f"`{value}`" for value in variable.values) or "any"
    default = f"`{variable.default}`" if variable.default else "unset"
    return f"| `{variable.name}` | {values} | {default} | {variable.meaning} |"


def test_the_page_on_verification_lists_the_kit_s_properties() -> None:
    text = (ROOT / "docs" / "verify-a-kernel.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", text, re.MULTILINE)
    wanted = [(p.name, p.about) for p in properties.PROPERTIES]
    assert rows == wanted + [(name, law.about) for name, law in laws.BY_NAME.items()]


def test_the_page_on_official_names_is_the_table_in_the_code() -> None:
    text = (ROOT / "docs" / "format-official-torch.md").read_text(encoding="utf-8")
    rows = text.partition("| --- | --- | --- | --- |\n")[2].splitlines()
    assert rows == [_official_row(row.canonical) for row in official.TABLE]


def _official_row(canonical: str) -> str:
    whole = canonical if canonical.startswith("model.") else f"model.layers.0.{canonical}"
    torch, flax = (form.place_of(whole) for form in (official.TORCH, official.FLAX))
    names = " | ".join(f"`{place.stored.replace('blocks.0', 'blocks.N')}`" for place in (torch, flax))
    axes = "same" if flax.transform.name == "none" else flax.transform.name
    axes = axes if flax.transform is torch.transform else f"Flax: {axes}"
    return f"| `{canonical}` | {names} | {axes}{'' if torch.half is None else f', half {torch.half}'} |"


def test_the_page_on_keras_names_is_the_table_in_the_code() -> None:
    text = (ROOT / "docs" / "format-keras.md").read_text(encoding="utf-8")
    rows = text.partition("| --- | --- | --- | --- |\n")[2].splitlines()
    assert rows == [_keras_row(row.canonical) for row in keras.TABLE]


def _keras_row(canonical: str) -> str:
    whole = canonical if canonical.startswith(("model.", "lm_head.")) else f"model.layers.0.{canonical}"
    place = keras.KERAS.place_of(whole)
    names = " | ".join(f"`{name.replace('layer_0', 'layer_N')}`" for name in (place.dataset, place.variable))
    return f"| `{canonical}` | {names} | {'same' if place.transform.name == 'none' else place.transform.name} |"


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    assert sorted(re.findall(r"([\w-]+\.md)", nav)) == sorted(p.name for p in PAGES[1:])


def test_decisions_are_numbered_without_gaps() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    for letter in "SBPH":
        numbers = [int(n) for n in re.findall(rf"^\| {letter}(\d+) \|", text, re.MULTILINE)]
        assert len(numbers) >= 7
        assert numbers == list(range(1, len(numbers) + 1))


def test_the_readme_s_quick_facts_hold() -> None:
    """What the README promises about installation is what the project file says."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert 'requires-python = ">=3.11"' in project
    assert "\ntorch==2.13.0\n" in constraints
    extras = re.findall(r"^([a-z]+) = \[\"", project.partition("[project.optional-dependencies]")[2], re.MULTILINE)
    for page in PAGES:
        for words in commands(page):
            for word in words:
                if word.startswith((".[", "griffin-core[")):
                    assert set(re.findall(r"[a-z]+", word.partition("[")[2])) <= set(extras), words
