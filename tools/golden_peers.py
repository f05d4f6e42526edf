"""Which public implementations run here, and what each reads: its format, its runner, its cases."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import golden_mlx
import golden_official
import golden_transformers
from golden_cases import Case

from griffin_core.config import GriffinConfig
from griffin_core.shapes import Array


@dataclass(frozen=True)
class Peer:
    """A public implementation.

    Attributes:
        modules: what must import.
        versions: first numbers of the versions of transformers that it means; empty for any.
        reads: the format of the checkpoints it loads, as ``griffin convert --to`` names it.
        run: logits float32 [b t v] of a checkpoint, a config and a case.
    """

    modules: tuple[str, ...]
    versions: str
    reads: str
    run: Callable[[Path, GriffinConfig, Case], Array]


PEERS: dict[str, Peer] = {
    "official-torch": Peer(("recurrentgemma.torch",), "", "recurrentgemma-torch", golden_official.run_torch_file),
    "official-jax": Peer(("recurrentgemma.jax",), "", "recurrentgemma-flax", golden_official.run_jax_directory),
    "transformers": Peer(("torch", "transformers"), "5", "huggingface", golden_transformers.run_directory),
    "transformers-4": Peer(("torch", "transformers"), "4", "huggingface", golden_transformers.run_directory),
    "mlx": Peer(("mlx.core", "mlx_lm"), "", "huggingface", golden_mlx.run_directory),
}


def missing(name: str) -> str | None:
    """Why the peer cannot run here; None when it can."""
    peer = PEERS[name]
    for module in peer.modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            return f"{name} needs {module}: {error}"
    if peer.versions:
        found = importlib.metadata.version("transformers")
        if found.partition(".")[0] != peer.versions:
            return f"{name} is transformers {peer.versions}; {found} is installed"
    return None
