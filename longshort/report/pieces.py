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
    """Divides texts by one tokenizer."""

    def __init__(self, tokenizer: Decoder) -> None:
        self._tokenizer = tokenizer
        # Single tokens with their length in characters and in UTF-16 units.
        self._known: dict[int, tuple[str, int, int]] = {}

    def __call__(self, ids: Sequence[int], text: str) -> tuple[int, ...]:
        """UTF-16 units of each token, together no more than ``text`` has; empty where the tokens do not spell it.

        Tokens that make a character together count for the last of them. A last token that is not in the text, as the
        end of a sequence, has 0.
        """
        lengths: list[int] = []
        at = 0
        pending: list[int] = []
        for place, token in enumerate(ids):
            pending.append(token)
            piece, size, width = self._single(token) if len(pending) == 1 else _sized(self.text(pending))
            if text.startswith(piece, at):
                lengths.append(width)
                at += size
                pending.clear()
                continue
            half = piece.endswith("\ufffd") and len(pending) < _LONGEST
            last = place == len(ids) - 1 and len(pending) == 1
            if not half and not last:
                return ()
            lengths.append(0)
        return tuple(lengths)

    def text(self, ids: Sequence[int]) -> str:
        """Decoded."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def _single(self, token: int) -> tuple[str, int, int]:
        found = self._known.get(token)
        if found is None:
            found = self._known[token] = _sized(self.text((token,)))
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


def _sized(piece: str) -> tuple[str, int, int]:
    return piece, len(piece), units(piece)
