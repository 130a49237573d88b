"""Written conversations as episodes: what each role would have seen and written, in its own tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from longshort.controller import render_prompt
from longshort.episode import Episode, Ids, Problem, Turn
from longshort.generation import Tokenizer
from longshort.protocol import Protocol

# One turn: the role that wrote it and its text, with both tags.
Written = tuple[str, str]


def as_episode(
    problem: Problem, turns: Sequence[Written], tokenizers: Mapping[str, Tokenizer], protocol: Protocol
) -> Episode:
    """The conversation as the controller would have recorded it, had the roles sampled these turns.

    The last turn ends with its author's end-of-sequence token, so that a model stops without stop strings too.
    Log-probabilities are 0: nothing was sampled.

    Raises:
        ValueError: a turn is not in the protocol's form, or not by the role whose turn it is.
    """
    prompts = {role: render_prompt(protocol, role, tokenizers[role], problem.question) for role in protocol.roles}
    written: list[Turn] = []
    role: str | None = protocol.first
    for number, (author, text) in enumerate(turns, start=1):
        closing = protocol.closing(author, text) if author in protocol.closings else None
        if author != role or closing is None or not protocol.well_formed(author, text):
            raise ValueError(f"turn {number} of {problem.id}, by {author}, is not what the protocol has {role} write")
        ids = {reader: _encode(tokenizers[reader], text) for reader in protocol.roles}
        role = protocol.closings[author][closing]
        end = _end(tokenizers[author]) if role is None else ()
        own = ids.pop(author) + end
        written.append(
            Turn(
                role=author,
                token_ids=own,
                text=text,
                log_probs=(0.0,) * len(own),
                finish_reason="stop",
                read_as={reader: theirs for reader, theirs in ids.items() if theirs != own},
            )
        )
    if role is not None or not written:
        raise ValueError(f"the conversation about {problem.id} ends without an answer: {role} would be next")
    return Episode(problem, prompts, tuple(written), "answered")


def _encode(tokenizer: Tokenizer, text: str) -> Ids:
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def _end(tokenizer: Tokenizer) -> Ids:
    return () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
