"""The programs that JAX has compiled in this process, and dropping them before there are too many."""

from __future__ import annotations

from pathlib import Path

import jax

_MAPS = Path("/proc/self/maps")
_MOST = Path("/proc/sys/vm/max_map_count")


def release_programs() -> bool:
    """Drop every compiled program once the process has half of the memory maps that Linux allows it.

    A program for processors holds some ten maps (an interpreted kernel's some hundred) for as long as ``jax.jit``
    remembers it. Past the limit, 65,530 as Linux is set up, compiling ends the process with a segmentation fault. What
    is still needed is compiled again when it is next called.

    Returns:
        Whether they were dropped; False on other systems.
    """
    if not (_MAPS.exists() and _MOST.exists()):
        return False
    with _MAPS.open("rb") as maps:
        held = sum(1 for _ in maps)
    if 2 * held < int(_MOST.read_text()):
        return False
    jax.clear_caches()
    return True
