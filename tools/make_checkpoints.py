"""Make the tiny checkpoints in tests/checkpoints/tiny, each by the program that owns its format.

    python tools/make_checkpoints.py native
    python tools/make_checkpoints.py official-torch official-flax    # needs recurrentgemma, torch, jax, orbax
    python tools/make_checkpoints.py keras                           # needs keras, and an engine of it
    python tools/make_checkpoints.py transformers                    # needs transformers 5
    python tools/make_checkpoints.py transformers-4                  # needs transformers 4

All hold the golden weights (tools/golden_cases.py) in bfloat16, in which they are exact. How to install the public
implementations is in docs/parity.md.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import golden_files
import golden_official
import golden_transformers
from golden_cases import CONFIG, WINDOW

from griffin_core.shapes import DTYPES, Array

DIRECTORY = Path(__file__).resolve().parent.parent / "tests" / "checkpoints" / "tiny"


def weights() -> dict[str, Array]:
    """The golden weights in bfloat16, by canonical name."""
    return {name: value.astype(DTYPES["bfloat16"]) for name, value in golden_files.weights().items()}


def native(directory: Path) -> None:
    """By this library."""
    from griffin_core.checkpoints import native as written

    written.save(directory, CONFIG, weights(), metadata={"made_by": "tools/make_checkpoints.py"}, overwrite=True)


def official_torch(directory: Path) -> None:
    """The state dict of the official PyTorch module, as its users save it."""
    import torch

    directory.mkdir(parents=True)
    module = golden_official.torch_model(CONFIG, golden_files.weights()).to(torch.bfloat16)
    torch.save(module.state_dict(), directory / "tiny.pt")


def official_flax(directory: Path) -> None:
    """The parameters of the official Flax module, through orbax's plain checkpointer; no level "params"."""
    import jax.numpy as jnp
    import orbax.checkpoint
    from jax import tree

    params = tree.map(
        lambda value: jnp.asarray(value, jnp.bfloat16), golden_official.flax_weights(golden_files.weights())
    )
    orbax.checkpoint.PyTreeCheckpointer().save(directory, params)
    (directory / "commit_success.txt").unlink(missing_ok=True)  # it names the machine's path, and nobody reads it


def transformers(directory: Path) -> None:
    """``save_pretrained``; the window is written as the released configs have it: keys before the query."""
    import torch

    module = golden_transformers.model(CONFIG, golden_files.weights(), WINDOW - 1).to(torch.bfloat16)
    module.save_pretrained(directory)


def keras(directory: Path) -> None:
    """``Model.save``, optimiser and compile config included."""
    import griffin_core_keras as backend

    directory.mkdir(parents=True)
    model = backend.GriffinCausalLM(CONFIG, init=None, dtype="bfloat16")
    backend.variables.assign(model, weights().items())
    model.compile(backend.AdamW(1e-3))
    model.save(directory / "tiny.keras")


MAKERS: dict[str, Callable[[Path], None]] = {
    "native": native,
    "official-torch": official_torch,
    "official-flax": official_flax,
    "keras": keras,
    "transformers": transformers,
    "transformers-4": transformers,
}


def main() -> int:
    """Make the named checkpoints anew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="+", choices=MAKERS)
    for what in parser.parse_args().what:
        shutil.rmtree(DIRECTORY / what, ignore_errors=True)
        MAKERS[what](DIRECTORY / what)
    return 0


if __name__ == "__main__":
    sys.exit(main())
