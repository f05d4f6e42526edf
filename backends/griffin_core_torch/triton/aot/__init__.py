"""Compile the kernels for GPUs that are not there, and count what the compiler made of them.

    from griffin_core_torch.triton import aot

    found = aot.build(aot.programs()[0], "sm_90")
    found.spills, found.instructions, found.special

``python -m griffin_core_torch.triton.aot.table`` prints the table of counts.
"""

from griffin_core_torch.triton.aot.compile import TARGETS, Build, build
from griffin_core_torch.triton.aot.programs import Program, programs

__all__ = ["TARGETS", "Build", "Program", "build", "programs"]
