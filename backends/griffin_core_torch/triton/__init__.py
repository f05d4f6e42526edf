"""GPU kernels in Triton: the recurrence forward and backward, the causal convolution, the one-token update.

=============== ======================================================================
``device``      what runs on the GPU
``loading``     those modules, for the compiler or for the interpreter
``plan``        how a call is cut: a pure function of shape, dtype and device
``call``        a call's tensors as the kernels take them
``passes``      a forward and a backward pass of the recurrence: workspaces, launches
``conv_passes`` the same of the convolution
``ops``         the recurrence as operators of PyTorch; ``conv_ops``: the convolution
``step``        one token of a recurrent block; ``token_ops``: what surrounds it
``aot``         the kernels compiled for GPUs that are not there, and their counts
``records``     the kernels as this backend offers them
=============== ======================================================================

Triton itself is imported when a kernel runs, not before: PyTorch's CPU builds come without it.
"""
