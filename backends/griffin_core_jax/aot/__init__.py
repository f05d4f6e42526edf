"""Compile for TPUs without owning one, and read what the compiler says.

    from griffin_core_jax import aot

    compiled = aot.compile_for(function, arguments, "v5e")
    aot.memory(compiled).peak
    aot.layout_copies(compiled)

It needs the ``libtpu`` package (extra ``tpu-aot``), which is proprietary software of Google under its own terms.
"""

from griffin_core_jax.aot.compile import Memory, compile_for, memory, require_libtpu, topology_devices
from griffin_core_jax.aot.layouts import Copy, layout_copies

__all__ = ["Copy", "Memory", "compile_for", "layout_copies", "memory", "require_libtpu", "topology_devices"]
