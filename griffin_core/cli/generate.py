"""``griffin generate``."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from griffin_core.cli.console import Output
from griffin_core.errors import InputError
from griffin_core.sampling import Sampling

if TYPE_CHECKING:
    from griffin_core.generation.run import Run
    from griffin_core.generation.state_file import SavedState
    from griffin_core.model import Model

Text = Parameter(allow_leading_hyphen=True)

_SHOWN_PROMPT = 60
_CONTROLS = {code: "\ufffd" for code in (*range(32), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class Choice:
    """How tokens are chosen.

    Parameters
    ----------
    temperature
        0 takes the most probable token; default 1.
    top_k
        Keep the k most probable tokens; default 0, off.
    top_p
        Keep the fewest most probable tokens that together reach this probability; default 1, off.
    min_p
        Keep tokens at least this times as probable as the most probable; default 0, off.
    repetition_penalty
        Make the last tokens less probable; default 1, off.
    repetition_window
        How many last tokens the penalty covers; default 64.
    seed
        Of the random draws; prompt number r (from 0) uses seed + r; default 0.
    greedy
        The same as --temperature 0.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    repetition_window: int | None = None
    seed: int | None = None
    greedy: bool = False

    def sampling(self, saved: SavedState | None) -> Sampling:
        """What is given, over the settings of a saved state or the defaults."""
        given = {name: value for name, value in vars(self).items() if value is not None and name != "greedy"}
        if self.greedy and given.setdefault("temperature", 0.0):
            raise InputError(f"--greedy and --temperature {self.temperature} contradict each other; give one")
        return dataclasses.replace(Sampling() if saved is None else saved.sampling, **given)


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class Source:
    """What generates.

    Parameters
    ----------
    checkpoint
        Directory of a native checkpoint.
    backend
        Instead of GRIFFIN_BACKEND.
    kernel
        Instead of GRIFFIN_KERNEL.
    dtype
        Of weights and products; default float32.
    no_verify
        Skip hashing the checkpoint's files.
    """

    checkpoint: Path | None = None
    backend: str | None = None
    kernel: str | None = None
    dtype: str | None = None
    no_verify: bool = False

    def load(self) -> Model:
        """The model; the packaged one when no checkpoint is named."""
        from griffin_core import api

        path = api.packaged_checkpoint() if self.checkpoint is None else self.checkpoint
        dtype = self.dtype or "float32"  # not the checkpoint's: in float32 all backends write the same greedy text
        return api.load(path, backend=self.backend, kernel=self.kernel, dtype=dtype, verify=not self.no_verify)


_DEFAULT_CHOICE, _DEFAULT_SOURCE = Choice(), Source()


def generate(
    *,
    prompt: Annotated[list[str] | None, Text] = None,
    prompt_file: Annotated[Path | None, Text] = None,
    max_new_tokens: int = 128,
    choice: Choice = _DEFAULT_CHOICE,
    stop: Annotated[list[str] | None, Text] = None,
    stop_id: list[int] | None = None,
    save_state: Path | None = None,
    load_state: Path | None = None,
    source: Source = _DEFAULT_SOURCE,
    json: bool = False,
) -> int:
    """Generate text; save and resume the state.

    One prompt is streamed as it is made; several are printed in order.
    Without --checkpoint the small model of the package is used. The
    tokenizer's end-of-text token ends a text. With --load-state the
    settings of the saved state hold unless they are given.

    Parameters
    ----------
    prompt
        Text to continue; repeat it for a batch.
    prompt_file
        File whose whole text is one more prompt; - is standard input.
    max_new_tokens
        New tokens of each prompt at most.
    choice
        How tokens are chosen.
    stop
        Text that ends a row, and is not part of it; repeat it for several.
    stop_id
        Token id that ends a row, instead of the tokenizer's end-of-text token; repeat it for several.
    save_state
        Write the state after the text to this file; it belongs to this config and these weights.
    load_state
        Continue from this file; a prompt is then optional and is read first.
    source
        What generates.
    json
        Print one JSON document: texts, tokens, tokens per second.
    """
    from griffin_core.generation import run as runs
    from griffin_core.generation import service, state_file

    prompts = _prompts(prompt, prompt_file, load_state)
    runs.check_count(max_new_tokens)
    if save_state is not None:
        state_file.check_writable(save_state)
    saved = None if load_state is None else state_file.load_state(load_state)
    sampling = choice.sampling(saved)
    model = source.load()
    run = service.begin(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        stop=stop or (),
        stop_ids=stop_id,
        session=None if saved is None else saved.session(model.engine(), model.digest),
        keep_state=save_state is not None,
        lively=not json,
    )
    out = Output(json)
    _print(run, prompts, out)
    size = None if save_state is None else state_file.save_state(save_state, run.session, sampling, model.digest)
    _report(run, model, out, save_state, size)
    return 0


def _prompts(prompt: list[str] | None, prompt_file: Path | None, load_state: Path | None) -> list[str] | None:
    """The prompts in order; None when a saved state is continued as it stands."""
    texts = list(prompt or [])
    if prompt_file is not None:
        texts.append(_read_text(prompt_file))
    if not texts and load_state is None:
        raise InputError("there is no prompt; give --prompt TEXT, --prompt-file FILE or --load-state FILE")
    return texts or None


def _read_text(path: Path) -> str:
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return data.decode()
    except OSError as error:
        raise InputError(f"cannot read the prompt file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the prompt file {path} is not UTF-8 at byte {error.start}; convert it first") from error


def _print(run: Run, prompts: list[str] | None, out: Output) -> None:
    if out.json:
        run.finish()
    elif run.rows == 1:
        for (piece,) in run:
            out.say(_visible(piece, out), end="")
        out.say()
    else:
        texts = prompts or [""] * run.rows
        for line in _batch_lines(run.finish(), texts):
            out.say(_visible(line, out))


def _batch_lines(run: Run, prompts: list[str]) -> Iterator[str]:
    for row, (prompt, result) in enumerate(zip(prompts, run.results, strict=True)):
        start = " ".join(prompt.split())
        start = start if len(start) <= _SHOWN_PROMPT else start[: _SHOWN_PROMPT - 3] + "..."
        yield f"=== {row + 1} of {run.rows}: {start}" if start else f"=== {row + 1} of {run.rows}"
        yield result.text


def _visible(text: str, out: Output) -> str:
    """Text that can do no harm to a terminal, and that the stream's encoding can express."""
    if out.stream.isatty():
        text = text.translate(_CONTROLS)
    encoding = out.stream.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _report(run: Run, model: Model, out: Output, state: Path | None, size: int | None) -> None:
    results = run.results
    made = sum(len(result.tokens) for result in results)
    rate = made / run.seconds if run.seconds else None
    if not out.json and sys.stderr.isatty():
        speed = f", {rate:.1f} tokens/s" if rate else ""
        kept = f"; state of {size} bytes in {state}" if state else ""
        sys.stderr.write(f"[{made} tokens{speed}, {model.backend}{kept}]\n")
    out.result(
        {
            "backend": model.backend,
            "checkpoint": model.source,
            "texts": [result.text for result in results],
            "tokens": [result.tokens for result in results],
            "logprobs": [result.logprobs for result in results],
            "finish_reasons": [result.finish_reason for result in results],
            "stops": [result.stop for result in results],
            "new_tokens": made,
            "seconds": run.seconds,
            "tokens_per_second": rate,
            "state_file": state,
            "state_bytes": size,
        }
    )
