"""A few small tensors as the bytes of a safetensors file, the same bytes each time, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np

from griffin_core.shapes import DTYPES, Array

CODES: dict[str, str] = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I32": "int32"}
"""The format's dtype codes that a state may have, and their names."""

_CODE_OF = {name: code for code, name in CODES.items()}


def pack(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """The file's bytes: header length, JSON header (metadata first), then the tensors without gaps."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for name, value in tensors.items():
        stop = start + value.nbytes
        header[name] = {"dtype": _CODE_OF[value.dtype.name], "shape": list(value.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(value.tobytes() for value in tensors.values())


def header_of(data: bytes) -> dict[str, dict]:
    """The header of a file's bytes.

    Raises:
        ValueError: it is not a JSON object of objects.
    """
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise ValueError("the header is no JSON object")
    return header


def unpack(data: bytes) -> dict[str, Array]:
    """The tensors of a file's bytes, as copies.

    Raises:
        ValueError, KeyError, TypeError: the header does not describe the bytes.
    """
    base = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in header_of(data).items():
        if name == "__metadata__":
            continue
        code, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
        dtype = DTYPES.get(CODES[code], np.dtype(np.int32))
        if stop - start != math.prod(shape) * dtype.itemsize or not 0 <= start <= stop <= len(data) - base:
            raise ValueError(f"{name} has {stop - start} bytes at {start} for the shape {shape}")
        tensors[name] = np.frombuffer(data[base + start : base + stop], dtype).reshape(shape).copy()
    return tensors
