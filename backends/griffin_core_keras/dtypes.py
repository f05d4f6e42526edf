"""Names of floating dtypes: the same as NumPy's, and as Keras's own."""

from __future__ import annotations

from griffin_core.errors import ConfigError, nearest
from griffin_core.shapes import DTYPES


def as_dtype(dtype: str | None, default: str) -> str:
    """The name itself; None gives ``default``.

    Raises:
        ConfigError: the name is not one of ``shapes.DTYPES``.
    """
    if dtype is None:
        return default
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; {nearest(dtype, DTYPES)}")
    return dtype
