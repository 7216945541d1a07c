"""Generated tokens as text that a terminal can be given: whole characters only, and no control over the terminal.

A byte-level token may end in the middle of a character, and a model can write any character, escape sequences too.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

_HARMLESS = frozenset("\n\t")
# They reorder what is shown around them ("Trojan Source", CVE-2021-42574); other format characters, such as the joiner in
# an emoji, do no harm.
_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def whole_characters(tokenizer: Tokenizer, tokens: Iterable[int]) -> Iterator[str]:
    """Yield the text of `tokens` as it grows; a character that is not complete yet is held back.

    Bytes that never become a character come out as U+FFFD, as `decode` gives them.
    """
    stream = DecodeStream(skip_special_tokens=True)
    seen: list[int] = []
    shown = ""
    for token in tokens:
        seen.append(token)
        piece = stream.step(tokenizer, token)
        if piece:
            shown += piece
            yield piece
    rest = tokenizer.decode(seen, skip_special_tokens=True)
    if rest.startswith(shown) and len(rest) > len(shown):
        yield rest[len(shown) :]


def neutralise(text: str) -> str:
    """Return `text` with control characters made visible, so that it cannot steer a terminal.

    C0 controls become their pictures (ESC is shown as U+241B), DEL U+2421, C1 controls, line and paragraph separators and
    characters that reorder text U+FFFD. Newline and tab stay.
    """
    return "".join(c if c in _HARMLESS else _picture(c) for c in text)


def _picture(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if character in _REORDERING or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return "\ufffd"
    return character
