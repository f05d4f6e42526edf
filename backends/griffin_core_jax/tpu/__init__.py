"""Pallas TPU kernels: native [b t d] layout, states carried in VMEM, resets selected, ragged ends masked.

Beside their arguments kernels read two things, both part of jit's cache key: ``chips.current()`` (which generation
to cut blocks for) and ``interpret.mode()`` (compile, or interpret on this host).

What the compiler's schedules taught, for whoever writes another kernel here:

* A row [1 block_width] of float32 fills block_width / 1024 registers, one independent chain each. One chain waits for
  itself: a block 2560 wide takes half the bundles per element of one 512 wide. ``tiling`` prefers wide blocks.
* Arithmetic that needs no order goes on whole groups of 16 rows, through a float32 scratch, then rows one by one;
  slices of a *value* are dear, slices of a scratch are cheap. One store issues per bundle and a row's store takes
  two: write rows once, and do what can be done tile by tile there.
* Marks (``marks``) are scalars of a row: a select on a scalar costs a few hundredths of a bundle.
"""
