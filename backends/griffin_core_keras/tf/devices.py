"""Which devices there are, and where a tensor is."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from griffin_core.errors import BackendError

_KINDS = {"GPU": "cuda", "CPU": "cpu", "TPU": "tpu"}


def devices() -> list[str]:
    """Every accelerator by name, then the processor with its threads; ``griffin info`` shows it."""
    found = []
    for index, gpu in enumerate(tf.config.list_physical_devices("GPU")):
        name = tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        found.append(f"cuda:{index} ({name})")
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    return [*found, f"cpu ({threads} threads)" if threads else "cpu"]


def find_device(name: str) -> str:
    """TensorFlow's name of the device that "cpu", "gpu", "cuda" or "cuda:1" names.

    Raises:
        BackendError: there is none; those that there are are listed.
    """
    kind, _, index = name.partition(":")
    kind = {"cuda": "GPU"}.get(kind, kind.upper())
    number = int(index) if index.isdecimal() else 0 if not index else -1
    if kind not in _KINDS or not 0 <= number < len(tf.config.list_physical_devices(kind)):
        raise BackendError(f"TensorFlow has no device {name!r}; there are {', '.join(devices())}")
    return f"/{kind}:{number}"


def platform(*arrays: Any) -> str:
    """Where a computation on these arrays runs: "cpu" or "cuda".

    The device of the first array that has one; else TensorFlow's default, a GPU where there is one.
    """
    for x in arrays:
        kind = tf.DeviceSpec.from_string(x.device or "").device_type if tf.is_tensor(x) else None
        if kind in _KINDS:
            return _KINDS[kind]
    return "cuda" if tf.config.list_physical_devices("GPU") else "cpu"
