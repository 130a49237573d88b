"""Which part of a turn's text each of its tokens stands for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

# No character takes more tokens.
_LONGEST = 8


class Decoder(Protocol):
    """A tokenizer of the library ``tokenizers``."""

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str: ...


class Pieces:
    """Divides texts by one tokenizer; decoded tokens are kept."""

    def __init__(self, tokenizer: Decoder) -> None:
        self._tokenizer = tokenizer
        self._known: dict[tuple[int, ...], str] = {}

    def __call__(self, ids: Sequence[int], text: str) -> tuple[int, ...]:
        """UTF-16 units of each token, together no more than ``text`` has; empty where the tokens do not spell it.

        Tokens that make a character together count for the last of them. A last token that is not in the text, as the
        end of a sequence, has 0.
        """
        lengths: list[int] = []
        at = 0
        pending: tuple[int, ...] = ()
        for place, token in enumerate(ids):
            pending += (token,)
            piece = self._decoded(pending)
            if text.startswith(piece, at):
                lengths.append(units(piece))
                at += len(piece)
                pending = ()
                continue
            half = piece.endswith("\ufffd") and len(pending) < _LONGEST
            last = place == len(ids) - 1 and len(pending) == 1
            if not half and not last:
                return ()
            lengths.append(0)
        return tuple(lengths)

    def text(self, ids: Sequence[int]) -> str:
        """Decoded."""
        return self._decoded(tuple(ids))

    def _decoded(self, ids: tuple[int, ...]) -> str:
        found = self._known.get(ids)
        if found is None:
            found = self._known[ids] = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return found


def pieces_of(model: str) -> Pieces | None:
    """By the tokenizer in a model's folder; None where there is none, since a report asks no network."""
    file = Path(model).expanduser() / "tokenizer.json"
    if not file.is_file():
        return None
    from tokenizers import Tokenizer

    return Pieces(Tokenizer.from_file(str(file)))


def units(text: str) -> int:
    """Length as a browser counts it: characters beyond the first plane are two."""
    return len(text) + sum(char > "\uffff" for char in text)
