"""The conformance kit: is this function, kernel or backend what the reference says it must be?

``judge`` gives a report; ``replay`` runs one property on one case again. It needs NumPy and Hypothesis, and no
framework: arrays pass through the judged backend's ``from_numpy`` and ``to_numpy``.
"""

from griffin_core.testing.cases import Case, ModelCase
from griffin_core.testing.conformance import judge, replay, verify
from griffin_core.testing.report import Record, Report
from griffin_core.testing.tolerance import assert_close

__all__ = ["Case", "ModelCase", "Record", "Report", "assert_close", "judge", "replay", "verify"]
