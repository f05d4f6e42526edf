"""Hypothesis strategies: sizes are drawn rather than crossed, and the simplest choice always comes first."""

from __future__ import annotations

from hypothesis import strategies as st

from griffin_core.testing.cases import DECAYS, FLOATS, LAYOUTS, MODELS, RESETS, Case, ModelCase

SHORT_TIMES = (2, 15, 16, 17, 31, 64, 65)
TIMES = (*SHORT_TIMES, 128, 129, 255, 256, 257, 300)
"""Lengths at and beside the block sizes that kernels choose."""
FEW_CHANNELS = (2, 3, 8, 16, 17, 31)
CHANNELS = (*FEW_CHANNELS, 64, 65, 127, 128, 130)
SEEDS = st.integers(0, 2**16)


def cases(long: bool = True, wide: bool = True) -> st.SearchStrategy[Case]:
    """Cases of operations: mostly small, sometimes at the edges of block sizes.

    Args:
        long: of large blocks of time too.
        wide: of large blocks of channels too.
    """
    return st.builds(
        Case,
        b=st.integers(1, 3),
        t=st.one_of(st.integers(1, 20), st.sampled_from(TIMES if long else SHORT_TIMES)),
        d=st.one_of(st.integers(1, 9), st.sampled_from(CHANNELS if wide else FEW_CHANNELS)),
        seed=SEEDS,
        dtype=st.sampled_from(FLOATS),
        decay=st.sampled_from(DECAYS),
        resets=st.sampled_from(RESETS),
        carry=st.booleans(),
        cut=st.integers(0, 300),
        pads=st.integers(0, 3),
        layout=st.sampled_from(LAYOUTS),
        taps=st.integers(2, 4),
        blocks=st.integers(1, 3),
        heads=st.integers(1, 3),
        window=st.sampled_from((0, 1, 2, 7, 16)),
    )


def model_cases() -> st.SearchStrategy[ModelCase]:
    """Cases of whole models: every tiny config, lengths up to several windows."""
    return st.builds(
        ModelCase,
        model=st.sampled_from(tuple(MODELS)),
        b=st.integers(1, 3),
        t=st.integers(1, 14),
        seed=SEEDS,
        dtype=st.sampled_from(FLOATS),
        documents=st.sampled_from(RESETS),
        carry=st.booleans(),
        cut=st.integers(0, 14),
    )
