"""What one row of a batch has generated: its tokens, its text, and which of it can still be taken back."""

from __future__ import annotations

from bisect import bisect_right

from griffin_core.generation.stops import Stops
from griffin_core.text.stream import StreamDecoder

LENGTH = "length"
STOP = "stop"


class Transcript:
    """Takes one token after the other and says which text may be shown.

    The tail of the text is held back while it may be the beginning of a stop string, and an unfinished
    character until it is complete; what has been released is never taken back.

    Args:
        stops: what ends the text early.
        decoder: turns ids into text; None for a model without a tokenizer, whose text stays empty.

    Attributes:
        tokens: the tokens so far; after a stop, those that lie wholly in the kept text.
        logprobs: the model's log-probability of each.
        text: the text so far; after a stop it ends before the stop string.
        finish_reason: None while it goes on, then "stop" or "length".
        stop: the stop string or stop id that ended it.
    """

    def __init__(self, stops: Stops, decoder: StreamDecoder | None) -> None:
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.text = ""
        self.finish_reason: str | None = None
        self.stop: str | int | None = None
        self._stops = stops
        self._decoder = decoder
        self._released = 0
        # After _counts[i] tokens the text was _ends[i] characters long and no character was unfinished.
        self._counts, self._ends = [0], [0]

    @property
    def released(self) -> int:
        """Characters that may be shown: no stop string can begin before here."""
        return len(self.text) - (0 if self.finish_reason else self._stops.held(self.text))

    @property
    def settled(self) -> int:
        """Tokens that no later stop string can take back."""
        return self._whole_tokens(self.released)

    def add(self, token: int, logprob: float) -> bool:
        """Take the next token.

        Returns:
            Whether the text ends here. A stop id is not taken; a stop string and all after it is cut off.
        """
        if token in self._stops.ids:
            self._finish(token)
            return True
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if self._decoder is None:
            self._mark()
            return False
        seen = len(self.text)
        self.text += self._decoder.push([token])
        if not self._decoder.pending:
            self._mark()
        found = self._stops.find(self.text, seen)
        if found is None:
            return False
        begin, stop = found
        self.text = self.text[:begin]
        kept = self._whole_tokens(begin)
        del self.tokens[kept:], self.logprobs[kept:]
        self.finish_reason, self.stop = STOP, stop
        return True

    def run_out(self) -> None:
        """End it because no more tokens are wanted. An unfinished character stays unsaid: it can be continued."""
        self.finish_reason = LENGTH

    def release(self) -> str:
        """The text that has become certain since the last call."""
        end = self.released
        text = self.text[self._released : end]
        self._released = end
        return text

    def _finish(self, token: int) -> None:
        if self._decoder is not None:
            self.text += self._decoder.finish()
        self.finish_reason, self.stop = STOP, token

    def _mark(self) -> None:
        self._counts.append(len(self.tokens))
        self._ends.append(len(self.text))

    def _whole_tokens(self, length: int) -> int:
        """The most tokens whose text is complete and within the first ``length`` characters."""
        return self._counts[bisect_right(self._ends, length) - 1]
