"""House rules that a linter does not know: short files, short functions, one reader of the environment."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("griffin_core", "backends", "tests", "examples")
LIBRARY = ("griffin_core", "backends")
FILE_LINES, FUNCTION_LINES, EXAMPLE_LINES = 250, 40, 60


def _files(*folders: str) -> list[Path]:
    return sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py") if "__pycache__" not in p.parts)


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_files_are_short() -> None:
    lengths = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in _files(*FOLDERS)}
    assert len(lengths) > 30
    assert {name: n for name, n in lengths.items() if n > FILE_LINES} == {}
    examples = {name: n for name, n in lengths.items() if name.startswith("examples/") and n >= EXAMPLE_LINES}
    assert examples == {}


def long_functions(tree: ast.Module) -> dict[str, int]:
    """Functions whose code (docstring not counted) is longer than the rule allows."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node) is not None:
                lines -= (first.end_lineno or 0) - first.lineno + 1
            if lines > FUNCTION_LINES:
                found[node.name] = lines
    return found


def test_functions_are_short() -> None:
    found = {_name(path): long for path in _files(*FOLDERS) if (long := long_functions(_tree(path)))}
    assert found == {}


def test_the_measure_of_functions_bites() -> None:
    body = "    x = 1\n"
    assert long_functions(ast.parse("def f():\n" + body * FUNCTION_LINES)) == {"f": FUNCTION_LINES + 1}
    assert long_functions(ast.parse('def f():\n    """One.\n\n    Two."""\n' + body * (FUNCTION_LINES - 1))) == {}


def test_only_env_reads_the_environment() -> None:
    readers = {}
    for path in _files(*LIBRARY):
        touched = [n.attr for n in ast.walk(_tree(path)) if isinstance(n, ast.Attribute) and _is_environ(n)]
        if touched and _name(path) != "griffin_core/env.py":
            readers[_name(path)] = touched
    assert readers == {}


def _is_environ(node: ast.Attribute) -> bool:
    owner = node.value.id if isinstance(node.value, ast.Name) else None
    return owner == "os" and node.attr in ("environ", "environb", "getenv")


def test_no_user_facing_asserts() -> None:
    """``assert`` disappears under ``python -O``; the library raises its own errors."""
    asserts = {
        _name(path): [n.lineno for n in ast.walk(_tree(path)) if isinstance(n, ast.Assert)] for path in _files(*LIBRARY)
    }
    assert {name: lines for name, lines in asserts.items() if lines} == {}


@pytest.mark.parametrize("folder", LIBRARY)
def test_no_exception_is_swallowed(folder: str) -> None:
    """No bare ``except``, and no handler whose only statement is ``pass``."""
    bad = []
    for path in _files(folder):
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ExceptHandler):
                silent = all(isinstance(s, ast.Pass | ast.Continue) for s in node.body)
                if node.type is None or silent:
                    bad.append(f"{_name(path)}:{node.lineno}")
    assert bad == []
