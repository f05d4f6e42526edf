"""Who may import whom: three storeys, and no framework in any of them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {"griffin_core": ROOT, **{path.name: path.parent for path in (ROOT / "backends").glob("griffin_core_*")}}
FRAMEWORKS = (
    "torch",
    "jax",
    "keras",
    "tensorflow",
    "transformers",
    "grain",
    "hypothesis",
    "tokenizers",
    "sentencepiece",
    "matplotlib",
)

SPEC = (
    "config",
    "presets",
    "shapes",
    "errors",
    "env",
    "schedules",
    "sampling",
    "checks",
    "arguments",
    "rotary",
    "layouts",
)
# A module belongs to the group with the longest prefix of its name.
GROUPS = {
    "griffin_core": "services",
    **{f"griffin_core.{name}": "spec" for name in SPEC},
    "griffin_core.reference": "reference",
    "griffin_core.checkpoints": "files",
    # A tokenizer is a file format too: the native checkpoint holds it and knows its special tokens.
    **{f"griffin_core.text.{name}": "files" for name in ("byte_file", "sentencepiece_file", "stream", "tokenizer")},
    "griffin_core.protocol": "seam",
    "griffin_core.registry": "seam",
    "griffin_core.numpy_backend": "numpy",
    "griffin_core.testing": "testing",
    **{name: name for name in SOURCES if name != "griffin_core"},
    "griffin_core_keras.facades": "facades",
}
MAY_IMPORT = {
    "spec": {"spec"},
    "reference": {"spec", "reference"},
    "files": {"spec", "files"},
    "seam": {"spec", "seam"},
    "numpy": {"spec", "seam", "reference", "numpy"},
    "testing": {"spec", "seam", "reference", "testing"},
    "services": {"spec", "seam", "files", "services", "testing"},
    **{name: {"spec", "seam", "files", name} for name in SOURCES if name != "griffin_core"},
    # Keras computes with the kernels of its engine's backend, samples with the reference on the host, and hands its
    # model to the services.
    "griffin_core_keras": {
        *("spec", "seam", "files", "reference", "facades"),
        *("griffin_core_keras", "griffin_core_jax", "griffin_core_torch"),
    },
    "facades": {"spec", "seam", "files", "services", "griffin_core_keras"},
}
# Libraries beside the standard one, by prefix of the importing module; prefixes add up.
LIBRARIES: dict[str, set[str]] = {
    "griffin_core": {"numpy", "ml_dtypes", "jaxtyping"},
    "griffin_core.checkpoints": {"safetensors"},
    "griffin_core.checkpoints.hub": {"huggingface_hub"},
    "griffin_core.checkpoints.keras_h5": {"h5py"},
    "griffin_core.testing": {"hypothesis"},
    "griffin_core.text.tokenizer": {"tokenizers"},
    "griffin_core.text.sentencepiece_file": {"sentencepiece"},
    "griffin_core.training.data": {"grain"},
    "griffin_core.training.plots": {"matplotlib"},
    "griffin_core.training.progress": {"rich"},
    "griffin_core.cli": {"cyclopts", "rich"},
    "griffin_core_torch": {"torch", "numpy", "ml_dtypes"},
    "griffin_core_torch.benchmark_peers": {"transformers", "recurrentgemma"},
    "griffin_core_torch.benchmark_scan_adapters": {"accelerated_scan", "fla", "hawk", "mamba_ssm", "transformers"},
    "griffin_core_torch.triton": {"triton"},
    "griffin_core_jax": {"jax", "numpy"},
    "griffin_core_jax.benchmarks": {"jaxlib"},
    "griffin_core_jax.benchmark_peers": {"recurrentgemma", "optax"},
    "griffin_core_jax.checkpoints": {"orbax", "grain"},
    "griffin_core_jax.modules": {"flax"},
    "griffin_core_jax.official_directory": {"tensorstore"},
    "griffin_core_jax.official_packed": {"ml_dtypes"},
    "griffin_core_jax.official_tree": {"msgpack"},
    "griffin_core_jax.official_writer": {"tensorstore"},
    "griffin_core_keras": {"keras", "numpy"},
    "griffin_core_keras.engines.on_jax": {"jax"},
    "griffin_core_keras.engines.on_jax_mesh": {"jax"},
    "griffin_core_keras.engines.on_tensorflow": {"tensorflow"},
    "griffin_core_keras.engines.on_torch": {"torch"},
    "griffin_core_keras.tf": {"tensorflow", "numpy"},
    **{f"griffin_core_jax.{name}": {"optax"} for name in ("optimizer", "step", "trainer")},
}


def modules() -> dict[str, Path]:
    """Every module of every package, by dotted name."""
    found = {}
    for package, base in SOURCES.items():
        for path in sorted((base / package).rglob("*.py")):
            parts = list(path.relative_to(base).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(len(parts), 0, -1)]


def group(name: str) -> str:
    return next(GROUPS[prefix] for prefix in prefixes(name) if prefix in GROUPS)


LOADED_TWICE = "griffin_core_torch.triton.device"
"""Its modules name each other relatively, as they are imported under two names."""


def imported(source: str, package: str = "") -> set[str]:
    """Modules named by any import statement of a package's module, also inside functions and under TYPE_CHECKING."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if package == LOADED_TWICE and node.level == 1:
                names.add(f"{package}.{node.module}")
                continue
            assert node.level == 0, f"relative import of {node.module}"
            joined = {f"{node.module}.{alias.name}" for alias in node.names}
            ours = {name for name in joined if name in MODULES}
            names |= ours | ({node.module or ""} if ours != joined else set())
    return names


def violations(module: str, source: str) -> list[str]:
    """What ``module`` imports and may not."""
    allowed = set().union(*(LIBRARIES.get(prefix, set()) for prefix in prefixes(module)))
    wrong = []
    for name in sorted(imported(source, module.rpartition(".")[0])):
        top = name.partition(".")[0]
        if top in SOURCES:
            # The package root holds lazy public names: only errors may be taken from it, by services.
            if group(name) not in MAY_IMPORT[group(module)]:
                wrong.append(f"{module} ({group(module)}) imports {name} ({group(name)})")
        elif top not in sys.stdlib_module_names and top not in allowed:
            wrong.append(f"{module} imports the library {top}")
    return wrong


def test_everybody_imports_only_what_they_may() -> None:
    assert len(MODULES) > 60
    assert {group(name) for name in MODULES} >= {"spec", "reference", "files", "seam", "numpy", "services"}
    found = [wrong for name, path in MODULES.items() for wrong in violations(name, path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    ("module", "source", "caught"),
    [
        ("griffin_core.config", "import torch", "imports the library torch"),
        ("griffin_core.config", "from griffin_core import registry", "(spec) imports griffin_core.registry (seam)"),
        ("griffin_core.layouts.params", "from griffin_core.reference.scan import linear_scan", "(reference)"),
        ("griffin_core.reference.scan", "from griffin_core import numpy_backend", "(numpy)"),
        ("griffin_core.protocol", "from griffin_core.text import files", "(services)"),
        ("griffin_core.training.run", "def f():\n    from griffin_core import reference", "(reference)"),
        ("griffin_core.generation.run", "if TYPE_CHECKING:\n    from griffin_core.numpy_backend import ops", "(numpy)"),
        ("griffin_core.api", "import griffin_core_torch", "(griffin_core_torch)"),
        ("griffin_core.training.run", "import grain", "imports the library grain"),
        ("griffin_core_torch.model", "from griffin_core.testing import tolerance", "(testing)"),
        ("griffin_core_torch.model", "import griffin_core.reference.scan", "(reference)"),
        ("griffin_core_torch.model", "import transformers", "imports the library transformers"),
        ("griffin_core_torch.model", "from griffin_core import Model", "(services)"),
        ("griffin_core_jax.model", "from griffin_core_torch import arrays", "(griffin_core_torch)"),
        ("griffin_core_jax.model", "import flax", "imports the library flax"),
        ("griffin_core.numpy_backend.ops", "import torch.nn", "imports the library torch"),
    ],
)
def test_the_checker_catches_planted_violations(module: str, source: str, caught: str) -> None:
    wrong = violations(module, source)
    assert len(wrong) == 1
    assert caught in wrong[0]


def test_the_checker_lets_right_imports_pass() -> None:
    source = "import os, numpy as np\nfrom griffin_core import env\nfrom griffin_core.config import GriffinConfig"
    for module in ("griffin_core.layouts.params", "griffin_core.registry", "griffin_core_torch.model"):
        assert violations(module, source) == []


def loaded_after(statement: str, watched: tuple[str, ...]) -> list[str]:
    """Which of ``watched`` are in ``sys.modules`` of a fresh process after ``statement``."""
    code = f"{statement}\nimport sys\nprint([name for name in {watched!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    found: list[str] = ast.literal_eval(result.stdout.splitlines()[-1])
    return found


def test_importing_the_package_imports_no_framework_and_not_even_numpy() -> None:
    assert loaded_after("import griffin_core", (*FRAMEWORKS, "numpy", "rich", "cyclopts")) == []


def test_spec_seam_and_numpy_backend_import_no_framework() -> None:
    names = [n for n in MODULES if n.startswith("griffin_core.") and group(n) in ("spec", "reference", "seam", "numpy")]
    assert len(names) > 30
    assert loaded_after(f"import {', '.join(names)}", FRAMEWORKS) == []


def test_public_names_and_services_import_no_framework() -> None:
    statement = "import griffin_core\nfor name in griffin_core.__all__: getattr(griffin_core, name)\n"
    assert loaded_after(statement, FRAMEWORKS) == []
    services = [n for n in MODULES if group(n) in ("services", "files") and n != "griffin_core.__main__"]
    # Those services that verify use the kit, and the kit uses hypothesis.
    frameworks = tuple(name for name in FRAMEWORKS if name != "hypothesis")
    assert loaded_after(f"import {', '.join(services)}", frameworks) == []


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_backend_imports_no_other_framework(framework: str) -> None:
    pytest.importorskip(framework)
    optional = ("optax", "orbax", "flax", "libtpu") if framework == "jax" else ()
    others = tuple(name for name in FRAMEWORKS if name != framework)
    watched = (*others, *optional, "griffin_core.reference", "griffin_core.testing")
    assert loaded_after(f"import griffin_core_{framework}", watched) == []


def test_the_subprocess_check_sees_what_is_imported() -> None:
    assert loaded_after("import json.decoder", ("json", "torch")) == ["json"]
