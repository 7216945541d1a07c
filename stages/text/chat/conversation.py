"""The terminal side: read a beginning, stream its continuation, stop it on Ctrl-C.

Base models continue text. A chat-tuned model would bring a template of turns; none of our stages makes one yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TextIO

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipeline.errors import DataError
from stages.common.causal_lm import max_positions
from stages.common.encoding import encode_texts
from stages.common.generation import generate_tokens
from stages.common.stream import neutralise, whole_characters

WELCOME = (
    "This model continues text: type a beginning and press Enter. An empty line lets it begin by itself. "
    "Ctrl-C stops a text, Ctrl-C or Ctrl-D at the prompt leaves.\n"
)
PROMPT = "> "


@dataclass(frozen=True)
class Settings:
    """How texts are drawn; `top_k` 0 means all tokens."""

    seed: int
    temperature: float
    top_k: int
    max_new_tokens: int


class Conversation:
    """Continues beginnings with one model and writes to one stream."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Settings, output: TextIO) -> None:
        self.model, self.tokenizer, self.settings, self.output = model, tokenizer, settings, output
        self._texts = 0

    def run(self, lines: TextIO, *, interactive: bool) -> None:
        """Continue every line of `lines`, up to their end; KeyboardInterrupt at the prompt goes through."""
        if interactive:
            self._write(WELCOME)
        while True:
            if interactive:
                self._write(PROMPT)
            line = lines.readline()
            if not line:
                break
            try:
                self.continue_text(line.rstrip("\r\n"))
            except DataError as error:
                if not interactive:
                    raise
                self._write(f"{error}\n")
            except KeyboardInterrupt:
                if not interactive:
                    raise
                self._write("\n(stopped)\n")
        if interactive:
            self._write("\n")

    def continue_text(self, beginning: str) -> None:
        """Write `beginning` and its continuation, piece by piece, and a newline.

        Raises:
            DataError: the beginning leaves no room, or a setting is out of range.
        """
        self._write(neutralise(beginning))
        tokens = (
            token
            for _, token in generate_tokens(
                self.model,
                self.tokenizer,
                [beginning],
                # Each text of a session gets its own random numbers, so that the same beginning goes on differently.
                seed=self.settings.seed + self._texts,
                max_new_tokens=min(self.settings.max_new_tokens, self._room(beginning)),
                temperature=self.settings.temperature,
                top_k=self.settings.top_k or None,
            )
        )
        self._texts += 1
        for piece in whole_characters(self.tokenizer.backend_tokenizer, tokens):
            self._write(neutralise(piece))
        self._write("\n")

    def _room(self, beginning: str) -> int:
        positions = max_positions(self.model)
        if positions is None:
            return self.settings.max_new_tokens
        (tokens,) = encode_texts(self.tokenizer, [beginning])
        room = positions - len(tokens)  # the start token takes a position, the last new token none
        if room < 1:
            raise DataError(f"the beginning has {len(tokens)} tokens, but the model reads {positions}: shorten it")
        return room

    def _write(self, text: str) -> None:
        self.output.write(text)
        self.output.flush()
