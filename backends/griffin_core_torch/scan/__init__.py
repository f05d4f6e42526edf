"""The recurrent operations and their kernels.

``linear_scan`` < ``gated_scan`` < ``rg_lru`` < ``recurrent_middle``: each is defined through the one before
it (``compose.py``), and a kernel may stand under any of them.
"""
