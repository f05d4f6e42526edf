"""Training steps of whole pods, compiled without one: they fit, and sum once per sub-block and direction."""

from __future__ import annotations

import importlib.util

import pytest

from griffin_core_jax.sharding import pods

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (extra tpu-aot)"
)
TINY = pods.Plan("griffin-tiny", "v5e:2x2", fsdp=2, tensor=2, rows=4, time=256)
SUB_BLOCKS = 2


def check(report: pods.Report) -> None:
    """One sum per sub-block and direction over ``tensor``; what else travels in a layer are weights, over ``fsdp``."""
    assert 0 < report.memory.peak < report.limit
    if report.plan.topology.startswith("v5p"):
        return  # libtpu does not always export these programs
    counts = report.per_layer()
    tensor = {key: count for key, count in counts.items() if "tensor" in key[1]}
    assert tensor == {
        ("all-reduce", ("tensor",), False): SUB_BLOCKS,
        ("all-reduce", ("tensor",), True): SUB_BLOCKS,
    }
    assert counts[("all-gather", ("fsdp",), False)] == counts[("all-gather", ("fsdp",), True)] == 23 / 3


@pytest.mark.prove
@needs_libtpu
def test_a_small_model() -> None:
    report = pods.measure(TINY, "loop")
    check(report)
    assert pods.line(report).startswith("| griffin-tiny | v5e:2x2 | 1 x 2 x 1 x 2 | 4 x 256 | 0.0")


@pytest.mark.prove
@needs_libtpu
@pytest.mark.parametrize("plan", [pods.PLANS[0], pods.PLANS[3]], ids=lambda plan: f"{plan.model}-{plan.topology}")
def test_the_documented_plans(plan: pods.Plan) -> None:
    """Each model and each topology once; the others are minutes each, and the command prints them all."""
    check(pods.measure(plan))


@needs_libtpu
def test_refusals_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert pods.main(["--model", "recurrentgemma-2b", "--topology", "v5e:2x2", "--tensor", "4", "--rows", "1"]) == 2
    shown = capsys.readouterr()
    assert shown.out == pods.HEADER + "\n"
    message = "griffin: error: tensor=4 does not divide num_heads=10 and gate_blocks=10; legal sizes are 1, 2, 5, 10\n"
    assert shown.err.endswith(message)
