"""The loss in pieces against plain cross-entropy in float64: value, both gradients, and what it keeps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from griffin_core.shapes import UNIT_ROUNDOFF
from griffin_core_jax.loss import cross_entropy_sum


def plain(x, weight, targets, soft_cap, scale):
    """Cross-entropy and its gradients in float64 NumPy."""
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    raw = x @ weight.T
    logits = raw if soft_cap is None else soft_cap * np.tanh(raw / soft_cap)
    peak = logits.max(axis=-1, keepdims=True)
    weights = np.exp(logits - peak)
    total = weights.sum(axis=-1, keepdims=True)
    hit = np.arange(weight.shape[0]) == targets[..., None]
    real = (targets >= 0)[..., None]
    value = ((np.log(total) + peak - (logits * hit).sum(-1, keepdims=True)) * real).sum() * scale
    d = (weights / total - hit) * scale * real * (1.0 if soft_cap is None else 1.0 - np.tanh(raw / soft_cap) ** 2)
    return value, d @ weight, np.einsum("btv,btm->vm", d, x)


def case(b, t, m, v, seed, spread):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((b, t, m)).astype(np.float32)
    weight = (spread * rng.standard_normal((v, m)) / m**0.5).astype(np.float32)
    targets = rng.integers(0, v, (b, t)).astype(np.int32)
    targets[rng.random((b, t)) < 0.3] = -1
    return x, weight, targets


@functools.partial(jax.jit, static_argnames=("soft_cap", "piece_bytes"))
def value_and_gradients(x, weight, targets, soft_cap, scale=1.0, piece_bytes=1 << 26):
    """The loss, and the gradients of three times it."""

    def loss(x, weight):
        total = cross_entropy_sum(x, weight, targets, soft_cap, scale, piece_bytes=piece_bytes)
        return 3.0 * total, total

    grads, total = jax.grad(loss, argnums=(0, 1), has_aux=True)(x, weight)
    return total, *grads


@pytest.mark.parametrize("soft_cap", [None, 2.0])
@pytest.mark.parametrize("piece_bytes", [1 << 26, 4 * 37 * 2 * 4], ids=["one piece", "pieces of 4 positions"])
def test_value_and_gradients_equal_plain_cross_entropy(soft_cap, piece_bytes):
    b, t, m, v = 2, 15, 16, 37
    for spread in (1.0, 20.0):
        x, weight, targets = case(b, t, m, v, 3, spread)
        scale = 1.0 / int((targets >= 0).sum())
        found = value_and_gradients(x, weight, targets, soft_cap, scale, piece_bytes)
        value, dx, dweight = plain(x, weight, targets, soft_cap, scale)
        # A float32 dot product of m terms errs by at most m u sum|x w|; the loss is 1-Lipschitz in each logit, and
        # softmax moves by at most the largest error of its logits.
        u = UNIT_ROUNDOFF["float32"]
        logit = (m + 8) * u * float((np.abs(x) @ np.abs(weight).T).max()) + 8 * u * (soft_cap or 0.0)
        assert abs(found[0] - value) <= 2 * logit + 8 * u * abs(value)
        size = 3 * scale * (4 * logit + (v + 8) * u)
        np.testing.assert_allclose(found[1], 3 * dx, rtol=0, atol=size * 2 * np.abs(weight).sum(0).max())
        np.testing.assert_allclose(found[2], 3 * dweight, rtol=0, atol=size * np.abs(x).sum((0, 1)).max())


def test_the_loss_alone_is_the_loss_beside_its_gradient():
    x, weight, targets = case(2, 6, 8, 11, 0, 1.0)
    alone = cross_entropy_sum(jnp.asarray(x), jnp.asarray(weight), targets, 30.0)
    beside = value_and_gradients(x, weight, targets, 30.0)[0]
    assert abs(alone - beside) <= 8 * UNIT_ROUNDOFF["float32"] * abs(beside)


def test_positions_without_a_target_have_no_gradient_and_no_loss():
    x, weight, targets = case(2, 6, 8, 11, 0, 1.0)
    x[targets < 0] = np.nan
    value, dx, dweight = value_and_gradients(x, weight, targets, 30.0)
    assert np.isfinite(value)
    assert (np.asarray(dx)[targets < 0] == 0).all()
    assert np.isfinite(dweight).all()
    assert cross_entropy_sum(jnp.asarray(x), jnp.asarray(weight), np.full((2, 6), -1, np.int32), None) == 0.0
    assert cross_entropy_sum(jnp.asarray(x[:, :0]), jnp.asarray(weight), targets[:, :0], None) == 0.0


@pytest.mark.parametrize("soft_cap", [None, 500.0])
def test_large_logits_stay_finite(soft_cap):
    x = np.full((1, 3, 4), 50.0, np.float32)
    weight = np.linspace(-9, 9, 20, dtype=np.float32).reshape(5, 4)
    for found in value_and_gradients(x, weight, np.array([[0, 2, 4]], np.int32), soft_cap):
        assert np.isfinite(found).all()


def test_the_factor_has_its_gradient():
    x, weight, targets = case(2, 6, 8, 11, 0, 1.0)
    total = cross_entropy_sum(jnp.asarray(x), jnp.asarray(weight), targets, None)
    slope = jax.grad(lambda scale: cross_entropy_sum(jnp.asarray(x), jnp.asarray(weight), targets, None, scale))(0.25)
    assert slope == pytest.approx(float(total), rel=1e-6)


def test_bfloat16_products_accumulate_in_float32():
    x, weight, targets = case(2, 10, 64, 33, 1, 4.0)
    narrow = [np.asarray(jnp.asarray(a, jnp.bfloat16).astype(jnp.float32)) for a in (x, weight)]
    value, dx, dweight = plain(*narrow, targets, 30.0, 3.0)
    found = value_and_gradients(jnp.asarray(x, jnp.bfloat16), weight, targets, 30.0)
    assert [grad.dtype for grad in found[1:]] == [jnp.bfloat16, jnp.float32]
    assert abs(3.0 * found[0] - value) < 64 * UNIT_ROUNDOFF["float32"] * 600
    # The gradient is rounded where it is made and once more after the cotangent's factor.
    np.testing.assert_allclose(found[1].astype(jnp.float32), dx, rtol=4 * UNIT_ROUNDOFF["bfloat16"], atol=3e-4)
    np.testing.assert_allclose(found[2], dweight, rtol=0, atol=3e-4)


def largest(jaxpr):
    """Elements of the largest array in a program, loops included."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [v.aval.size for v in equation.outvars]
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            sizes += [largest(inner)] if hasattr(inner, "eqns") else []
    return max(sizes)


def test_never_holds_all_logits():
    b, t, m, v = 2, 256, 8, 128
    x, weight = jax.ShapeDtypeStruct((b, t, m), jnp.float32), jax.ShapeDtypeStruct((v, m), jnp.float32)
    targets = np.zeros((b, t), np.int32)

    def size(piece_bytes):
        how = {"soft_cap": 30.0, "piece_bytes": piece_bytes}
        grad = jax.grad(lambda x, w: cross_entropy_sum(x, w, targets, **how), argnums=(0, 1))
        return largest(jax.make_jaxpr(grad)(x, weight).jaxpr)

    assert size(4 * b * 16 * v) == b * t * m == b * 16 * v  # the hidden states; a piece of logits is as large
    assert size(1 << 26) == b * t * v
