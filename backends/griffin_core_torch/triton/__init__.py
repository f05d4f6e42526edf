"""GPU kernels in Triton: the recurrence forward and backward, the causal convolution, the one-token update.

=============== ======================================================================
``device``      what runs on the GPU
``loading``     those modules, for the compiler or for the interpreter
``plan``        how a call is cut: a pure function of shape, dtype and device
``call``        a call's tensors as the kernels take them
``passes``      a forward and a backward pass: workspaces, launches
``records``     the kernels as this backend offers them
=============== ======================================================================

Triton itself is imported when a kernel runs, not before: PyTorch's CPU builds come without it.
"""
