"""Judge a scan of your own with the conformance kit: a right one passes, a subtly wrong one does not.

Run: python examples/02_verify_my_kernel.py
"""

import sys

import numpy as np

import griffin_core as griffin


def right(x, log_a, h0=None, reset=None):
    """h_t = exp(log_a_t) h_{t-1} + x_t on [b t d]; a reset selects the old state away."""
    h = np.zeros(x.shape[::2], np.float32) if h0 is None else h0.copy()
    y = np.empty_like(x)
    for t in range(x.shape[1]):
        if reset is not None:
            h = np.where(reset[:, t, None], np.float32(0), h)
        h = np.exp(log_a[:, t].astype(np.float32)) * h + x[:, t].astype(np.float32)
        y[:, t] = h.astype(x.dtype)
    return y, h


def multiplies(x, log_a, h0=None, reset=None):
    """Wrong in one place: a reset multiplies the old state by zero, and zero times NaN is NaN."""
    h = np.zeros(x.shape[::2], np.float32) if h0 is None else h0.copy()
    y = np.empty_like(x)
    for t in range(x.shape[1]):
        if reset is not None:
            h = h * (1 - reset[:, t, None].astype(np.float32))
        h = np.exp(log_a[:, t].astype(np.float32)) * h + x[:, t].astype(np.float32)
        y[:, t] = h.astype(x.dtype)
    return y, h


sys.modules.setdefault("my_scans", sys.modules[__name__])  # so that "my_scans:right" names this file's function
for name in ("right", "multiplies"):
    report = griffin.verify(f"my_scans:{name}", backend="numpy")
    print(f"{name}: {'conforms' if report.passed else 'does not conform'}")
