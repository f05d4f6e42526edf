"""Pallas TPU kernels: native [b t d] layout, states carried in VMEM, resets selected, ragged ends masked.

Kernels read three things that are not arguments, all part of jit's cache key: ``chips.current()`` (which generation
to cut blocks for), ``interpret.interpret()`` (compile, or interpret on this host) and nothing else.
"""
