"""The laws that a whole backend is judged by, on tiny models: one function each, properties over its protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import ModuleType

from griffin_core.protocol import release_programs
from griffin_core.testing.cases import MODEL_CORNERS, ModelCase
from griffin_core.testing.judging import Effort, filled, search_laws
from griffin_core.testing.laws import decoding, gradients, states, texts
from griffin_core.testing.laws.trial import LawTrial
from griffin_core.testing.report import FAILED, SKIPPED, Record
from griffin_core.testing.strategies import model_cases
from griffin_core.testing.tolerance import Ledger

SUBJECT = "model"


@dataclass(frozen=True)
class Law:
    """A law, the capability it needs, and its share of the profile's draws."""

    check: Callable[[LawTrial], None]
    needs: str = ""
    drawn: float = 0.5

    @property
    def name(self) -> str:
        """How it is asked for: the function's name after "model."."""
        return f"model.{self.check.__name__}"

    @property
    def about(self) -> str:
        """What it says, in a line."""
        return (self.check.__doc__ or "").strip().splitlines()[0].rstrip(".")


LAWS: tuple[Law, ...] = (
    Law(texts.reference, drawn=1.0),
    Law(texts.form),
    Law(texts.packed),
    Law(texts.padded),
    Law(texts.promised),
    Law(texts.cut, drawn=1.0),
    Law(texts.steps),
    Law(texts.causal),
    Law(texts.rows),
    Law(texts.inputs),
    Law(texts.repeat),
    Law(states.exchange),
    Law(states.weights),
    Law(states.take),
    Law(states.put),
    Law(decoding.greedy, needs="decode"),
    Law(decoding.sampled, needs="decode"),
    Law(decoding.inactive, needs="decode"),
    Law(gradients.gradient, needs="vjp", drawn=1.0),
)
BY_NAME = {law.name: law for law in LAWS}


def judge_backend(
    name: str,
    module: ModuleType,
    effort: Effort,
    names: Iterable[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Record]:
    """One record for each law (or those of these names)."""
    chosen = [law for law in LAWS if names is None or law.name in names]
    if chosen and progress is not None:
        progress(SUBJECT)
    return [judge_law(law, name, module, effort) for law in chosen]


def judge_law(law: Law, name: str, module: ModuleType, effort: Effort) -> Record:
    """Search for a case where the law does not hold."""
    begun, ledger = time.monotonic(), Ledger()
    record = Record(subject=SUBJECT, property=law.name, about=law.about, status=SKIPPED)
    if law.needs and not hasattr(module, law.needs):
        return replace(record, reason=f"the {name} backend has no {law.needs}")

    def check(case: ModelCase) -> None:
        law.check(LawTrial(name, module, case, ledger))

    outcome = search_laws(check, law.name, MODEL_CORNERS, model_cases(), effort, effort.count(law.drawn, module))
    release_programs(module)
    record = filled(record, outcome, ledger, time.monotonic() - begun)
    if record.status != FAILED:
        return record
    lines = (
        "from griffin_core.testing import ModelCase, replay",
        "",
        f"case = {outcome.case!r}",
        f'replay(None, "{law.name}", case, backend="{name}")',
    )
    return replace(record, reproduce="\n".join(lines))


def check_law(law: str, case: ModelCase, name: str, module: ModuleType) -> None:
    """One law on one case; raises when it does not hold."""
    BY_NAME[law].check(LawTrial(name, module, case))
