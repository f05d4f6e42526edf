"""What runs on the GPU: Triton functions, nothing else.

``griffin_core_torch.triton.loading`` imports these modules twice where both are wanted: once as kernels that Triton
compiles, once as kernels that its interpreter runs on CPU tensors. Nothing here knows which.

Legend: a *row* is [segments, width] numbers of one token each: segment g of a tile holds the tokens
``first + g * rows`` and on, one warp each. A tuple of rows is a tile; loads of a tuple are all in flight at once.
"""
