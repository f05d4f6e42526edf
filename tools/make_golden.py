"""Make the golden outputs in tests/parity/golden by running the public implementations.

    python tools/make_golden.py inputs
    python tools/make_golden.py official-torch official-jax     # needs recurrentgemma, jax, flax, torch
    python tools/make_golden.py transformers                    # needs transformers 5
    python tools/make_golden.py mlx                             # needs mlx-lm
    python tools/make_golden.py transformers-4                  # needs transformers 4

``make oracles`` installs them, in two environments. See docs/parity.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

import golden_cases
import golden_mlx
import golden_official
import golden_transformers
import ml_dtypes
import numpy as np
from golden_cases import CONFIG, WINDOW, Case
from golden_files import DIRECTORY
from safetensors.numpy import save_file

from griffin_core.shapes import Array

OFFICIAL_CASES = ("full", "beyond", "packed", "padded", "decode", "packed_decode", "padded_decode")
TRANSFORMERS_CASES = ("full", "beyond", "packed", "padded", "decode", "padded_decode", "chunked")
MLX_CASES = ("full", "beyond", "decode", "chunked")

Outputs = dict[str, Array]


def official_torch() -> tuple[Outputs, dict[str, str]]:
    """Logits by case of the official torch half, and the versions."""
    return _outputs(OFFICIAL_CASES, golden_official.run_torch), golden_official.versions("torch")


def official_jax() -> tuple[Outputs, dict[str, str]]:
    """Logits by case of the official Flax half, and the versions."""
    return _outputs(OFFICIAL_CASES, golden_official.run_jax), golden_official.versions("jax")


def transformers() -> tuple[Outputs, dict[str, str]]:
    """Logits by case at our window, and "beyond" at the official number, as the Hub's configs have it."""
    outputs = _outputs(TRANSFORMERS_CASES, lambda c, w, case: golden_transformers.run(c, w, case, WINDOW))
    narrow = _outputs(("beyond",), lambda c, w, case: golden_transformers.run(c, w, case, WINDOW - 1))
    return {**outputs, "beyond_window_minus_1": narrow["beyond"]}, golden_transformers.versions()


def transformers_4() -> tuple[Outputs, dict[str, str]]:
    """Logits by case of a transformers 4, which ignores the window in a pass without a cache."""
    run: Callable[..., Array] = lambda c, w, case: golden_transformers.run(c, w, case, WINDOW)  # noqa: E731
    return _outputs(("full", "beyond"), run), golden_transformers.versions()


def mlx() -> tuple[Outputs, dict[str, str]]:
    """Logits by case of mlx-lm, which takes single documents without padding only."""
    return _outputs(MLX_CASES, golden_mlx.run), golden_mlx.versions()


PEERS: dict[str, Callable[[], tuple[Outputs, dict[str, str]]]] = {
    "official-torch": official_torch,
    "official-jax": official_jax,
    "transformers": transformers,
    "transformers-4": transformers_4,
    "mlx": mlx,
}


def write_inputs() -> None:
    """Write the weights (bfloat16, which holds them exactly) and the cases' inputs."""
    weights = golden_cases.make_weights()
    arrays = {name: value.astype(ml_dtypes.bfloat16) for name, value in weights.items()}
    for case in golden_cases.make_cases().values():
        arrays[f"case.{case.name}.tokens"] = case.tokens
        arrays[f"case.{case.name}.positions"] = case.positions
        arrays[f"case.{case.name}.pieces"] = np.array(case.pieces, np.int32)
    metadata = {"config": json.dumps(CONFIG.to_dict()), "weights_sha256": golden_cases.digest(weights)}
    save_file(arrays, DIRECTORY / "inputs.safetensors", metadata)


def write_peer(name: str) -> None:
    """Run a peer and write its logits, with its versions and the digest of the weights it ran on."""
    outputs, versions = PEERS[name]()
    metadata = {**versions, "weights_sha256": golden_cases.digest(golden_cases.make_weights())}
    save_file(outputs, DIRECTORY / f"{name}.safetensors", metadata)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["inputs", *PEERS])
    for what in parser.parse_args().what:
        write_inputs() if what == "inputs" else write_peer(what)
    return 0


def _outputs(names: tuple[str, ...], run: Callable[..., Array]) -> Outputs:
    cases: dict[str, Case] = golden_cases.make_cases()
    weights = golden_cases.make_weights()
    return {name: np.ascontiguousarray(run(CONFIG, weights, cases[name]), np.float32) for name in names}


if __name__ == "__main__":
    sys.exit(main())
