"""Our backends against golden outputs of the public implementations (made by tools/make_golden.py).

Where a peer is wrong, its golden output must really differ from the float64 reference, only where the fault
says, and our backends must stay with the reference.
"""

from __future__ import annotations

import json

import golden_files as files
import numpy as np
import pytest
from golden_cases import CONFIG, WINDOW, digest
from golden_faults import FAULTS, Fault

from griffin_core.config import from_dict

PEERS = ("official-torch", "official-jax", "transformers", "transformers-4")
_FAULTY = {(fault.peer, fault.output) for fault in FAULTS}
OUTPUTS = [(peer, output) for peer in PEERS for output in sorted(files.read(peer))]
RIGHT = [pair for pair in OUTPUTS if pair not in _FAULTY]
CASES = sorted({output.removesuffix("_window_minus_1") for _, output in OUTPUTS})


def test_the_golden_files_belong_to_these_weights_and_this_config() -> None:
    inputs = files.metadata("inputs")
    assert from_dict(json.loads(inputs["config"])) == CONFIG
    assert inputs["weights_sha256"] == digest(files.weights())
    assert {peer: files.metadata(peer)["weights_sha256"] for peer in PEERS} == dict.fromkeys(
        PEERS, digest(files.weights())
    )


def test_every_kind_of_case_is_there() -> None:
    assert {output for peer, output in RIGHT if peer == "official-torch"} == {
        "full",
        "beyond",
        "packed",
        "padded",
        "decode",
        "packed_decode",
        "padded_decode",
    }
    assert files.case("beyond").tokens.shape[1] > 4 * WINDOW
    assert set(OUTPUTS) >= _FAULTY


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend", files.BACKENDS)
def test_backends_agree_with_the_reference(backend: str, name: str) -> None:
    real = files.case(name).positions >= 0
    assert files.distance(files.ours(backend, name), files.truth(name), real) <= files.AGREES


@pytest.mark.parametrize(("peer", "output"), RIGHT)
@pytest.mark.parametrize("backend", files.BACKENDS)
def test_backends_agree_with_the_peer(backend: str, peer: str, output: str) -> None:
    golden = files.read(peer)[output]
    real = files.case(output).positions >= 0
    assert golden.dtype == np.float32
    assert files.distance(files.ours(backend, output), golden, real) <= files.AGREES
    assert files.distance(files.truth(output), golden, real) <= files.AGREES


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.peer}-{fault.output}")
def test_where_a_peer_is_wrong_the_reference_is_on_our_side(fault: Fault) -> None:
    case, golden, truth = files.case(fault.output), files.read(fault.peer)[fault.output], files.truth(fault.output)
    real = case.positions >= 0
    touched = fault.tokens(case) & real
    assert touched.any()
    assert (real & ~touched).any()
    assert files.distance(golden, truth, touched) > files.DIFFERS
    assert files.distance(golden, truth, real & ~touched) <= files.AGREES
    for backend in files.BACKENDS:
        assert files.distance(files.ours(backend, fault.output), truth, touched) <= files.AGREES


def test_the_window_number_alone_decides_parity_with_transformers() -> None:
    beyond = files.read("transformers")
    everywhere = np.ones_like(files.case("beyond").positions, bool)
    assert files.distance(beyond["beyond"], files.read("official-torch")["beyond"], everywhere) <= files.AGREES
    assert files.distance(beyond["beyond"], beyond["beyond_window_minus_1"], everywhere) > files.DIFFERS
