"""What each model reads of a conversation: one rule.

A role's prompt is its chat template over

1. a system message: the protocol's prompt for the role, then the client's own system messages, a blank line between;
2. the messages of user and assistant in their order, those of one speaker in a row put together with a blank line; of
   an earlier answer its text only, for what was thought on the way is not kept;
3. the role's instruction behind the last of them, where the protocol has one.

So a single question gives the prompt that training gave it, to the token.

**A client's text is never taken for a tag.** Wherever it holds one of the protocol's tags or one of a tokenizer's
special tokens, a space is put behind that one's first character: ``</think>`` is read as ``< /think>``, which encodes
to other tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from longshort.episode import Ids
from longshort.generation import Chat, chat_ids
from longshort.protocol import TAGS, Protocol
from longshort.serving.request import Message

BREAK = "\n\n"


class Prompts:
    """Makes the prompts of a team's roles.

    Args:
        protocol: its system prompts and instructions.
        tokenizers: per role.

    Attributes:
        protected: the protocol's tags and the tokenizers' special tokens.
    """

    def __init__(self, protocol: Protocol, tokenizers: Mapping[str, Any]) -> None:
        self._protocol = protocol
        self._tokenizers = tokenizers
        special = {token for each in tokenizers.values() for token in special_tokens(each)}
        self.protected = tuple(dict.fromkeys([*TAGS, *sorted(special)]))
        self.plain = Neutraliser(self.protected)

    def __call__(self, messages: Sequence[Message]) -> dict[str, Ids]:
        """Per role, the ids that it starts from."""
        system, turns = self._plain_parts(messages)
        prompts = {}
        for role in self._protocol.roles:
            head = {"role": "system", "content": BREAK.join([self._protocol.system_prompts[role], *system])}
            last = {**turns[-1], "content": turns[-1]["content"] + self._protocol.instructions.get(role, "")}
            prompts[role] = chat_ids(self._tokenizers[role], Chat((head, *turns[:-1], last)))
        return prompts

    def _plain_parts(self, messages: Sequence[Message]) -> tuple[list[str], list[dict[str, str]]]:
        """The client's system messages, and everything else by speaker."""
        system = [self.plain(message.content) for message in messages if message.role == "system"]
        turns: list[dict[str, str]] = []
        for message in messages:
            if message.role == "system":
                continue
            if turns and turns[-1]["role"] == message.role:
                turns[-1]["content"] += BREAK + self.plain(message.content)
            else:
                turns.append({"role": message.role, "content": self.plain(message.content)})
        return system, turns


class Neutraliser:
    """Takes a text apart wherever it holds one of ``protected``, in any case of letters and any width of characters."""

    def __init__(self, protected: Iterable[str]) -> None:
        longest_first = sorted({text for text in protected if text.strip()}, key=lambda text: (-len(text), text))
        self._protected = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)

    def __call__(self, text: str) -> str:
        # A tokenizer may normalise before it looks for special tokens.
        normal = unicodedata.normalize("NFKC", text)
        if self._protected.search(text) is None and self._protected.search(normal) is None:
            return text
        text = normal
        while found := self._protected.search(text):
            at = found.start() + 1
            text = f"{text[:at]} {text[at:]}"
        return text


def special_tokens(tokenizer: Any) -> list[str]:
    """Texts that ``tokenizer`` turns into control tokens."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return [str(token) for token in added.values() if token.special] + list(
        getattr(tokenizer, "all_special_tokens", [])
    )
