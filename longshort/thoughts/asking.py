"""Ask a model for something that can be checked, and again with what was wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from longshort.generation import Chat, Generator, SamplingParams

T = TypeVar("T")
# Of an answer that broke off, this many characters are shown to the model again.
SHOWN_OF_CUT = 2_000


@dataclass(frozen=True, slots=True)
class Asked(Generic[T]):
    """What came of asking.

    Attributes:
        value: of the first answer that could be read, or None.
        faults: why the answers before it were refused.
    """

    value: T | None
    faults: tuple[str, ...]


async def ask(
    generator: Generator,
    messages: Sequence[Mapping[str, str]],
    params: SamplingParams,
    session: str,
    read: Callable[[str], T],
    retries: int,
) -> Asked[T]:
    """Ask until ``read`` accepts the answer, at most ``1 + retries`` times.

    ``read`` refuses by ``ValueError``, whose sentence the model is shown together with its answer; only the latest
    answer is shown, so that the prompt does not grow. With a seed, each attempt has another one.
    """
    if retries < 0:
        raise ValueError(f"retries is {retries}: give how often to ask again, at least 0")
    faults: list[str] = []
    asked = list(messages)
    for attempt in range(retries + 1):
        seed = None if params.seed is None else params.seed + attempt
        completion = await generator.generate(Chat(tuple(asked)), replace(params, seed=seed), session)
        text = completion.text
        assert text is not None, "a chat is answered in text"
        try:
            if completion.finish_reason == "length":
                text = text[:SHOWN_OF_CUT]
                raise ValueError(f"the answer broke off after {params.max_tokens} tokens: give a shorter one")
            return Asked(read(text), tuple(faults))
        except ValueError as error:
            faults.append(str(error))
        again = f"This answer cannot be used: {faults[-1]}. Answer again, with the corrected JSON only."
        asked = [*messages, {"role": "assistant", "content": text}, {"role": "user", "content": again}]
    return Asked(None, tuple(faults))
