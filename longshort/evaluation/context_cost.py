"""What a conversation cost to read: prompt tokens that each turn was given, and those that no cache held.

A pair writes little, but every turn reads the conversation so far, and each role has its own copy of it. So what is
generated alone flatters a pair.
"""

from __future__ import annotations

from collections.abc import Sequence

from longshort.episode import Episode


def context_cost(episodes: Sequence[Episode], role: str) -> dict[str, float | None]:
    """Means per episode, in tokens of the role's own tokenizer.

    - ``prompt``: given to the engine, over all turns of the role.
    - ``cached``: of these, held by its prefix cache; None where the engine does not say so for every turn.
    - ``computed``: the others; None with ``cached``.
    - ``generated``: sampled.

    What a cache holds depends on the machine and on what is asked beside it; ``prompt`` and ``generated`` do not.
    """
    turns = [turn for episode in episodes for turn in episode.turns if turn.role == role]
    prompt = sum(turn.prompt_tokens for turn in turns)
    known = [turn.cached_tokens for turn in turns if turn.cached_tokens is not None]
    cached = sum(known) if len(known) == len(turns) else None
    totals = {
        "prompt": prompt,
        "cached": cached,
        "computed": None if cached is None else prompt - cached,
        "generated": sum(len(turn.token_ids) for turn in turns),
    }
    return {name: None if total is None else total / len(episodes) for name, total in totals.items()}
