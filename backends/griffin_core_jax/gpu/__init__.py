"""Pallas kernels for GPUs, compiled by Triton: native [b t d] layout, resets selected, ragged ends masked.

One kernel computes every forward pass (``forward``), one every backward pass (``backward``), one what a stretch of
time does to the state passing through it (``passes``). What they compute comes in as a ``Cell``: ``linear_cell`` and
``gated_cell``. ``plan`` cuts a call into blocks.

How a program is written, and why:

* It owns a few channels of one row of the batch and walks through time a tile of rows at a time. A loop that loads a
  row, updates the state and stores the row waits for memory once per row. Here the rows of a tile are loaded before
  anything is computed, and those of the next tile before this one is: loads are always in flight.
* A row is a value of its own, not a slice of a tile [rows width]: the recurrence then stays inside each thread.
* Where channels are too few to fill the GPU, time is cut too: one launch finds what each stretch does to a state, a
  small scan joins the stretches, and another launch computes them all at once. Nothing waits inside a launch and
  every sum has one order, so equal calls give equal bits.
"""
