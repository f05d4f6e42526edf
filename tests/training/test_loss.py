"""The chunked loss against plain cross-entropy in float64: value, both gradients, and what it keeps."""

import numpy as np
import pytest

from griffin_core.shapes import UNIT_ROUNDOFF

torch = pytest.importorskip("torch")
loss = pytest.importorskip("griffin_core_torch.loss")


def plain(x, weight, targets, soft_cap, scale):
    """Cross-entropy and its gradients in float64 NumPy."""
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    raw = x @ weight.T
    logits = raw if soft_cap is None else soft_cap * np.tanh(raw / soft_cap)
    peak = logits.max(axis=1, keepdims=True)
    weights = np.exp(logits - peak)
    log_z = np.log(weights.sum(axis=1, keepdims=True)) + peak
    real = targets >= 0
    rows = np.flatnonzero(real)
    value = (log_z[rows, 0] - logits[rows, targets[rows]]).sum() * scale
    d = weights / weights.sum(axis=1, keepdims=True)
    d[rows, targets[rows]] -= 1.0
    d *= scale * real[:, None] * (1.0 if soft_cap is None else 1.0 - np.tanh(raw / soft_cap) ** 2)
    return value, d @ weight, d.T @ x


def case(n, m, v, seed, spread):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, m)).astype(np.float32)
    weight = (spread * rng.standard_normal((v, m)) / m**0.5).astype(np.float32)
    targets = rng.integers(0, v, n)
    targets[rng.random(n) < 0.3] = -1
    return x, weight, targets


@pytest.mark.parametrize("soft_cap", [None, 30.0, 2.0])
@pytest.mark.parametrize("pieces", [(1 << 26, 1 << 20), (4 * 37 * 5, 4 * 37 * 2)], ids=["one piece", "many pieces"])
@pytest.mark.parametrize("spread", [1.0, 20.0])
def test_value_and_gradients_equal_plain_cross_entropy(monkeypatch, soft_cap, pieces, spread):
    monkeypatch.setattr(loss, "PIECE_BYTES", pieces[0])
    monkeypatch.setattr(loss, "BLOCK_BYTES", pieces[1])
    n, m, v = 29, 16, 37
    x, weight, targets = case(n, m, v, 3, spread)
    scale = 1.0 / max(1, int((targets >= 0).sum()))
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, weight)]
    found = loss.cross_entropy_sum(*tensors, torch.tensor(targets), soft_cap, scale)
    grads = torch.autograd.grad(3.0 * found, tensors)
    value, dx, dweight = plain(x, weight, targets, soft_cap, scale)
    # A float32 dot product of m terms errs by at most m u sum|x w|; the loss is 1-Lipschitz in each logit, and
    # softmax moves by at most the largest error of its logits.
    u = UNIT_ROUNDOFF["float32"]
    logit = (m + 8) * u * float((np.abs(x) @ np.abs(weight).T).max()) + 8 * u * (soft_cap or 0.0)
    assert abs(found.item() - value) <= 2 * logit + 8 * u * abs(value)
    size = 3 * scale * (4 * logit + (v + 8) * u)
    np.testing.assert_allclose(grads[0], 3 * dx, rtol=0, atol=size * 2 * np.abs(weight).sum(0).max())
    np.testing.assert_allclose(grads[1], 3 * dweight, rtol=0, atol=size * np.abs(x).sum(0).max())


def test_rows_without_a_target_have_no_gradient_and_no_loss():
    x, weight, targets = case(12, 8, 11, 0, 1.0)
    x[targets < 0] = np.nan
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, weight)]
    found = loss.cross_entropy_sum(*tensors, torch.tensor(targets), 30.0)
    dx, dweight = torch.autograd.grad(found, tensors)
    assert torch.isfinite(found)
    assert (dx[torch.tensor(targets < 0)] == 0).all()
    assert torch.isfinite(dweight).all()
    silent = loss.cross_entropy_sum(*tensors, torch.full((12,), -1), None)
    assert silent.item() == 0.0


def test_large_logits_stay_finite():
    x = torch.full((3, 4), 50.0, requires_grad=True)
    weight = torch.tensor(np.linspace(-9, 9, 20).reshape(5, 4), dtype=torch.float32, requires_grad=True)
    for soft_cap in (None, 30.0, 500.0):
        found = loss.cross_entropy_sum(x, weight, torch.tensor([0, 2, 4]), soft_cap)
        assert torch.isfinite(found)
        assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(found, (x, weight)))


def test_bfloat16_products_accumulate_in_float32():
    x, weight, targets = case(20, 64, 33, 1, 4.0)
    narrow = [torch.tensor(a).bfloat16().float().numpy() for a in (x, weight)]
    value, dx, dweight = plain(*narrow, targets, 30.0, 1.0)
    tensors = torch.tensor(x).bfloat16().requires_grad_(), torch.tensor(weight).requires_grad_()
    found = loss.cross_entropy_sum(*tensors, torch.tensor(targets), 30.0)
    grads = torch.autograd.grad(found, tensors)
    assert [grad.dtype for grad in grads] == [torch.bfloat16, torch.float32]
    assert abs(found.item() - value) < 64 * UNIT_ROUNDOFF["float32"] * 200
    np.testing.assert_allclose(grads[0].float(), dx, rtol=2 * UNIT_ROUNDOFF["bfloat16"], atol=1e-4)
    np.testing.assert_allclose(grads[1], dweight, rtol=0, atol=1e-4)


def test_never_holds_all_logits(monkeypatch):
    n, m, v = 512, 8, 128
    monkeypatch.setattr(loss, "PIECE_BYTES", 4 * 32 * v)
    largest = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            largest.extend(o.untyped_storage().nbytes() for o in [out] if isinstance(o, torch.Tensor))
            return out

    x = torch.randn(n, m, requires_grad=True)
    weight = torch.randn(v, m, requires_grad=True)
    with Watch():
        loss.cross_entropy_sum(x, weight, torch.zeros(n, dtype=torch.int64), 30.0).backward()
    assert max(largest) == 4 * n * m  # the hidden states; a piece of logits is as large, all logits 16 times that
    assert max(largest) == loss.PIECE_BYTES
