"""The proofs for a card, as far as they go without one: interpreted, small and few, so that none of it is dead code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed (extra triton)")

from griffin_core_torch.triton import launch, loading, plan
from tests.torch.gpu import carry, decoded, judged, sanitize, sweeps, whole
from tests.torch.gpu.calls import RECORDS, bits, differs, make_call

DEVICE = Path(loading.__file__).with_name("device")
STRIDE = 999_983
NUMPY_EXP = 6.0
"""Units of roundoff that NumPy's own exp may be off; the interpreter has it for Triton's."""
SHAPE = (1, 9, 6)
FEW = (64, 1)
"""(words of the largest poisoned block, blocks of each size)."""


@pytest.fixture
def interpreted() -> Iterator[None]:
    with loading.interpreting(), plan.fixed(sanitize.SMALL):
        yield


@pytest.mark.parametrize("function", sweeps.TRUTHS)
def test_the_interpreters_functions_keep_their_stated_errors(function: str) -> None:
    """Of tanh absolutely: without the machine's own it cancels near 0."""
    x, units = sweeps.arguments(function, STRIDE), sweeps.stated()[function]["plain"]
    with loading.interpreting():
        got = sweeps.evaluate(function, x, "cpu")
    sweeps.largest_error(function, x, got, NUMPY_EXP if function == "exp" else units, function == "tanh")


@pytest.mark.parametrize("function", ["exp2", "reciprocal", "rsqrt", "tanh"])
def test_the_worst_body_is_off_by_what_the_table_states(function: str) -> None:
    """One unit more is the rounding of what is put in. Not exp: the interpreter's multiply-adds round twice."""
    x, units = sweeps.arguments(function, STRIDE), sweeps.stated()[function]
    with loading.interpreting("worst"):
        got = sweeps.evaluate(function, x, "cpu")
    found = sweeps.largest_error(function, x, got, units["ptx"] + units["plain"] + 1.0, function == "tanh")
    assert found > 0.95 * units["ptx"]


@pytest.mark.parametrize(("dtype", "step"), [("bfloat16", 23), ("float16", 331)])
def test_narrow(dtype: str, step: int) -> None:
    """But for subnormal bfloat16 numbers, which the interpreter gets wrong; and cutting off would be seen."""
    x = sweeps.ties(dtype, step)
    x = x[~(np.abs(x) < sweeps.TINY)]
    with loading.interpreting():
        got = sweeps.evaluate("narrow", x, "cpu", dtype)
    assert sweeps.wrongly_narrowed(x, got, dtype) == 0
    assert sweeps.wrongly_narrowed(x, x.astype(np.float64), dtype) > len(x) // 2


def test_the_comparison_of_functions_bites() -> None:
    x = np.array([0.5, 2.0, np.inf, np.nan, 0.0, 1e-40, 3e38], np.float32)
    flushed = np.array([2.0, 0.5, 0.0, np.nan, np.inf, np.inf, 0.0])
    assert sweeps.largest_error("reciprocal", x, flushed, 0.5) == 0.0
    for index, wrong in ((0, 2.0 * (1 + 3 * sweeps.U)), (1, 0.0), (1, np.nan), (2, 1e-30), (3, 1.0), (4, -np.inf)):
        changed = flushed.copy()
        changed[index] = wrong
        with pytest.raises(AssertionError, match="beyond the 2 that are stated"):
            sweeps.largest_error("reciprocal", x, changed, 2.0)


@pytest.mark.parametrize("function", [*sweeps.TRUTHS, "narrow"])
def test_the_kernel_of_functions_compiles_for_a_card(function: str) -> None:
    from triton import compile as compile_triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {"FUNCTION": function, "WIDTH": sweeps.WIDTH, "BODY": "ptx"}
    signature = {"x": "*fp32", "out": "*bf16" if function == "narrow" else "*fp32", "count": "i32"}
    source = ASTSource(
        sweeps.loaded().apply_kernel,
        signature=signature | dict.fromkeys(constants, "constexpr"),
        constexprs={(3 + index,): value for index, value in enumerate(constants.values())},
    )
    options = {"num_warps": sweeps.WARPS, **launch.OPTIONS}
    made = compile_triton(source, target=GPUTarget("cuda", 90, 32), options=options)
    machine = {"exp": "ex2", "exp2": "ex2", "reciprocal": "rcp", "rsqrt": "rsqrt", "tanh": "tanh", "narrow": "cvt.rn"}
    assert f"{machine[function]}." in made.asm["ptx"]


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("key", [("gated_scan", "triton-exact"), ("rg_lru", "triton-fused")])
def test_launches_in_turn(key: tuple[str, str]) -> None:
    assert carry.launched(make_call(RECORDS[key], SHAPE, "cpu").values, "cpu", 2, 2, *FEW) == 0


@pytest.mark.usefixtures("interpreted")
def test_replays_in_turn() -> None:
    keys = [("gated_scan", "triton-aggregate"), ("linear_scan", "triton-exact")]
    runs = [make_call(RECORDS[key], SHAPE, "cpu").values for key in keys]
    assert carry.replayed(runs, "cpu", 2, *FEW) == 0


def test_a_bit_that_differs_is_counted() -> None:
    first, given = torch.zeros(3), [torch.zeros(3), torch.tensor([0.0, -0.0, 0.0]), torch.full((3,), 1e-45)]
    assert [int(differs([x], [bits(first)])) for x in given] == [0, 1, 1]
    turns = iter([first, *given])
    assert carry.launched(lambda: [next(turns)], "cpu", 3, 2, *FEW) == 2
    turns = iter([first, first, *given])
    assert carry.replayed([lambda: [next(turns)]] * 2, "cpu", 3, *FEW) == 2


@pytest.mark.usefixtures("interpreted")
def test_no_tile_size_changes_a_bit() -> None:
    call = make_call(RECORDS["linear_scan", "triton-exact"], SHAPE, "cpu", marks="documents")
    first = [bits(x) for x in call.values()]
    for cut in (plan.Plan(1, 1, 4), plan.Plan(8, 2, 8)):
        with plan.fixed(cut):
            assert int(differs(call.values(), first)) == 0


class _Seen:
    """A module of ``device`` that writes down which kernels are taken from it."""

    def __init__(self, module: Any, names: set[str]) -> None:
        self._module, self._names = module, names

    def __getattr__(self, name: str) -> Any:
        self._names.add(name)
        return getattr(self._module, name)


def test_every_kernel_is_sanitized(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    monkeypatch.setattr(launch, "device", lambda name: _Seen(loading.device(name), seen))
    assert len(sanitize.main("cpu")) == len(RECORDS)  # two choose the carry of others; a token is run for two batches
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in DEVICE.glob("*.py")]
    kernels = {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert seen == {name for name in kernels if name.endswith("_kernel")}


@pytest.mark.usefixtures("interpreted")
def test_the_kit_and_what_it_does_not_judge() -> None:
    assert judged.judged(RECORDS["conv1d", "triton"], "cpu", "quick", ["empty"]).passed
    judged.whole_kit(RECORDS["conv1d", "triton"], judged.FUSED_CASES[2].replace(t=5, d=3), "cpu", ["form", "repeat"])
    judged.rough_gates("cpu", "1e-3", SHAPE)
    judged.packed_beside_eager(RECORDS["linear_scan", "triton-aggregate"], SHAPE, "cpu")


def test_decoding_agrees_where_nothing_is_left_to_rounding() -> None:
    for case in decoded.CASES:
        (eager,) = decoded.decode(case, "cpu", "eager")
        decoded.agree(case, eager, eager)
    case = decoded.CASES[0].replace(b=1)
    with loading.interpreting():
        (found,) = decoded.decode(case, "cpu", "triton")
    decoded.agree(case, found, decoded.decode(case, "cpu", "eager")[0])
    assert None in decoded.graphs()  # nothing is recorded here


@pytest.mark.filterwarnings("ignore")  # PyTorch's own, of groups
def test_a_sharded_model(tmp_path: Path) -> None:
    plain, sharded = whole.model("cpu"), whole.model("cpu")
    expected = whole.loss_of(plain, "eager", "cpu", 20)()
    wanted = whole.gradients(plain, expected)
    with whole.alone("cpu", tmp_path):
        whole.shard(sharded, "cpu")
        found = whole.loss_of(sharded, "eager", "cpu", 20)()
        got = whole.gradients(sharded, found)
    assert torch.equal(found, expected)
    whole.close(got, wanted, 1e-6)


@pytest.mark.prove
@pytest.mark.filterwarnings("ignore")  # PyTorch's own, of tracing
@pytest.mark.usefixtures("interpreted")
def test_a_model_of_one_layer_is_one_graph() -> None:
    torch.compiler.reset()
    module = whole.model("cpu", whole.CONFIG.replace(num_layers=1, lru_width=8, gate_blocks=2))
    expected = whole.loss_of(module, "eager", "cpu", 9)()
    wanted = whole.gradients(module, expected)
    compiled = torch.compile(whole.loss_of(module, "triton", "cpu", 9), fullgraph=True, backend="aot_eager")()
    torch.testing.assert_close(compiled, expected)
    whole.close(whole.gradients(module, compiled), wanted, 1e-4)
