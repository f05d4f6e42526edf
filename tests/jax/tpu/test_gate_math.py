"""The gates inside a kernel: each form against running error analysis, and what the chip's own units may be off."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from griffin_core.config import RG_LRU_C
from griffin_core.errors import ConfigError
from griffin_core.testing import analysis
from griffin_core.testing.analysis import Approx, exact
from griffin_core_jax.tpu import chips, gate_math
from griffin_core_jax.tpu.interpret import interpreting

U = 2.0**-24
GATES = np.concatenate([np.linspace(-50, 50, 2001), [-120.0, -100.0, -90.0, -1e30, 90.0, 1e30]]).astype(np.float32)
HELD_OPEN = 1.036
"""A shut recurrence gate is held at 2^-125.9, 2^0.1 times what underflow may cost; m has the root of that."""
PARAMS = np.array([-60, -40, -20, -13.8, -5, -1, 0, 0.5, 3, 20, 1e4], np.float32)


def grid() -> tuple[np.ndarray, np.ndarray]:
    """gate_a [n p] against every parameter [p]; gate_x is gate_a rolled by a third."""
    gate_a = np.broadcast_to(GATES[:, None], (len(GATES), len(PARAMS)))
    return gate_a, np.roll(gate_a, len(GATES) // 3, axis=0)


def computed(form: str) -> dict[str, np.ndarray]:
    """Everything a kernel takes from ``gate_math``."""

    @jax.jit
    def run(gate_a: jax.Array, gate_x: jax.Array, params: jax.Array) -> dict[str, jax.Array]:
        terms = gate_math.channel_terms(params)
        found = gate_math.decay(form, gate_a, (terms[0:1], terms[1:2]), None, None)
        entry = {f"entry_{name}": value for name, value in gate_math.entry(form, gate_x, found.q)._asdict().items()}
        return {**found._asdict(), **entry, "mi": gate_math.entering(form, gate_x, found.q)}

    with interpreting("plain"):
        named = run(*map(jnp.asarray, grid()), jnp.asarray(PARAMS))
    return {name: np.asarray(value, np.float64) for name, value in named.items()}


def analysed(widen: float = 0.0, widen_multiplier: float = 0.0) -> dict[str, Approx]:
    """The same by running error analysis; sigmoids and multiplier may be given an error of their own."""
    gate_a, gate_x = grid()
    r, i = (analysis.sigmoid(exact(z)) for z in (gate_a, gate_x))
    r, i = (Approx(v.value, v.error + widen) for v in (r, i))
    log_a = analysis.softplus(PARAMS).scaled(-RG_LRU_C) * r
    m = analysis.multiplier(log_a)
    m = Approx(m.value, m.error + widen_multiplier * m.value)
    a = analysis.decay(log_a)
    a = Approx(a.value, a.error + 2 * U * a.value)  # exp's own roundings, which the scan's bound counts by itself
    return {"gate": r, "a": a, "entry_gate": i, "mi": m * i, "entry_scale": m * i}


def used(got: np.ndarray, want: Approx) -> float:
    """The largest part of the bound that is used up."""
    assert np.isfinite(got).all()
    return float(np.max(np.abs(got - want.value) / (want.error + 2.0**-126)))


@pytest.mark.parametrize("form", ["refined", "direct"])
def test_full_precision_forms(form: str) -> None:
    found, bounds = computed(form), analysed()
    shown = PARAMS > -2  # below, a gate that is all but shut is held open by what changes log a by less than 2^-126
    for name, bound in bounds.items():
        if name == "gate":
            assert used(found[name][:, shown], bound[:, shown]) <= 1.0
        else:
            assert used(found[name], bound) <= HELD_OPEN, name
    assert (found["q"] > 0).all()


def test_one_minus_a_squared_does_not_cancel() -> None:
    """2.6 units of roundoff wherever a is; 1 - a a has up to 2^24 of them."""
    found = computed("refined")
    true = -np.expm1(2.0 * np.log(2.0) * found["t"])
    normal = true > 2.0**-120
    assert np.max(np.abs(found["q"] - true)[normal] / true[normal]) < 2.6 * U


def test_the_approximate_form_keeps_its_bound() -> None:
    from griffin_core_jax.tpu.gated_scan import GATE_ERROR, MULTIPLIER_ERROR

    found, bounds = computed("approx"), analysed(GATE_ERROR, MULTIPLIER_ERROR)
    assert max(used(found[name], bound) for name, bound in bounds.items()) <= 1.0
    assert used(found["gate"], analysed()["gate"]) > 1e3  # far outside the float32 bound: it is no default


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_rough_unit_is_corrected(monkeypatch: pytest.MonkeyPatch, sign: float) -> None:
    """1/x and 1/sqrt(x) that are off by 2^-13 leave 3.5 2^-26: one Newton step corrects both."""
    rough = np.float32(1.0 + sign * 2.0**-13)
    exact_root = gate_math._inverse_sqrt_guess
    monkeypatch.setattr(gate_math, "_reciprocal_guess", lambda d: rough / d)
    monkeypatch.setattr(gate_math, "_inverse_sqrt_guess", lambda q: rough * exact_root(q))
    found, bounds = computed("refined"), analysed(0.0, 3.5 * 2.0**-26)
    ordinary = np.ix_(np.abs(GATES) < 30, PARAMS > -14)
    for name in ("mi", "entry_scale"):
        assert used(found[name][ordinary], bounds[name][ordinary]) <= 1.0


def test_the_chips_exponential() -> None:
    """exp2 of a rounded product: 1.23 |z| units of roundoff before exp2's own. The interpreters use exp instead."""
    z = np.linspace(-80, 80, 20001).astype(np.float32)
    got = np.exp2((np.float32(-gate_math.LOG2E) * z).astype(np.float64))
    true = np.exp(-z.astype(np.float64))
    assert np.all(np.abs(got - true) <= (1.23 * np.abs(z) + 2.0**-20) * U * true)
    with interpreting("off"):
        chip = np.asarray(gate_math._exp_minus(jnp.asarray(z), 125.9), np.float64)
    assert np.all(np.abs(chip - got) <= (np.abs(z) * 1.5 + 4) * U * got)  # XLA's exp2 on a CPU rounds its argument too


def test_resets_and_padding_are_selected() -> None:
    gate_a = jnp.full((3, 2), jnp.nan)
    reset, skip = (jnp.asarray(v)[:, None] for v in ([True, False, False], [False, True, False]))
    with interpreting("plain"):
        terms = gate_math.channel_terms(jnp.zeros(2))
        found = gate_math.decay("refined", gate_a, (terms[0:1], terms[1:2]), reset, skip)
    a, q = np.asarray(found.a), np.asarray(found.q)
    assert (a[0] == 0).all()
    assert (q[0] == 1).all()
    assert (a[1] == 1).all()
    assert np.isnan(a[2]).all()


def test_the_slope_of_softplus() -> None:
    p = np.array([-200, -88, -20, -1, 0, 1, 20, 200], np.float32)
    wide = p.astype(np.float64)
    want = np.where(p < -700, 1.0, 1.0 / ((1 + np.exp(-wide)) * np.logaddexp(0, wide)))
    np.testing.assert_allclose(np.asarray(gate_math.softplus_slope(jnp.asarray(p))), want, rtol=16 * U)
    terms = np.asarray(gate_math.channel_terms(jnp.asarray([-np.inf, -1e30, 1e30, np.inf], jnp.float32)))
    assert np.isfinite(terms).all()


def test_forms_of_the_generations() -> None:
    forms = {name: gate_math.form_for(row) for name, row in chips.CHIPS.items()}
    assert forms == {"v4": "refined", "v5e": "refined", "v5p": "refined", "v6e": "direct", "tpu7x": "direct"}
    assert gate_math.form_for(chips.SMALLEST, approx=True) == "approx"
    with pytest.raises(ConfigError, match="unknown form of the gates 'aprox'"):
        gate_math.check_form("aprox")
