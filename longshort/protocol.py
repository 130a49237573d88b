"""Who speaks next, what a turn must look like, when the episode ends; Long⊗Short's rules (arXiv 2505.11827, 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

THINK, END_THINK = "<think>", "</think>"
ANSWER, END_ANSWER, RETHINK = "<answer>", "</answer>", "</rethink>"
TAGS = (THINK, END_THINK, ANSWER, END_ANSWER, RETHINK)

PREAMBLE = (
    "Two assistants solve a problem together and take turns. The first does the hard thinking and writes it between "
    "<think> and </think>. The second completes the easier steps after it, beginning with <answer>: it either gives "
    "the final answer in \\boxed{} and ends with </answer>, or, where more hard thinking is needed, says what is "
    "missing and ends with </rethink>, which hands the problem back to the first. This goes on until the second "
    "closes with </answer>. Every turn holds exactly one opening and one closing tag.\n"
)
LONG_PROMPT = PREAMBLE + "You are the first assistant: think deeply about what is hard, and leave the rest."
SHORT_PROMPT = PREAMBLE + "You are the second assistant: be brief, and ask for more thinking only where it is needed."


@dataclass(frozen=True)
class Protocol:
    """The rules of a conversation between roles.

    Attributes:
        first: the role that opens.
        system_prompts: what each role is told.
        opening: the tag a role's turn begins with.
        closings: per role, what ends its turn, and who speaks after it; None ends the episode with an answer. Where
            there is nothing, the role's turn is the whole episode and ends by itself.
        instructions: per role, text behind the question.
        cuts: per role, strings that also stop its turn, which the controller then closes.
    """

    first: str
    system_prompts: Mapping[str, str]
    opening: Mapping[str, str]
    closings: Mapping[str, Mapping[str, str | None]]
    instructions: Mapping[str, str] = field(default_factory=dict)
    cuts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(self.system_prompts)

    def stop(self, role: str) -> tuple[str, ...]:
        """Stop strings of a role's turn."""
        return (*self.closings[role], *self.cuts.get(role, ()))

    def closing(self, role: str, text: str) -> str | None:
        """The closing tag that ``text`` ends with, white space aside, or None."""
        end = text.rstrip()
        return next((tag for tag in self.closings[role] if end.endswith(tag)), None)

    def well_formed(self, role: str, text: str) -> bool:
        """FM of equation (9): the role's opening tag, a body without tags that is not blank, a closing tag.

        A turn that ends by itself: thinking, ``</think>``, an answer; a chat template may have opened the thinking.
        Without an opening tag it is an answer alone.
        """
        turn = text.strip()
        if self.ends_itself(role) and not self.opening[role]:
            return bool(turn) and not any(tag in turn for tag in TAGS)
        if self.ends_itself(role):
            parts = turn.removeprefix(self.opening[role]).split(END_THINK)
            return len(parts) == 2 and all(part.strip() and not any(tag in part for tag in TAGS) for part in parts)
        closing = self.closing(role, turn)
        opening = self.opening[role]
        if closing is None or not turn.startswith(opening):
            return False
        body = turn[len(opening) : -len(closing)]
        return bool(body.strip()) and not any(tag in body for tag in TAGS)

    def may_answer(self, role: str) -> bool:
        """Whether a turn of ``role`` can end the episode with an answer."""
        return self.ends_itself(role) or None in self.closings[role].values()

    def handing_back(self, role: str) -> tuple[str, ...]:
        """Closing tags of ``role`` after which another one speaks."""
        return tuple(tag for tag, follower in self.closings[role].items() if follower is not None)

    def ends_itself(self, role: str) -> bool:
        """Whether nothing but the end of the sequence closes a turn of ``role``."""
        return not self.closings[role]

    def default_closing(self, role: str) -> str | None:
        """What the controller closes a cut turn of ``role`` with: only a turn that cannot hold the answer is closed."""
        return None if self.may_answer(role) else next(iter(self.closings[role]))


LONG_SHORT = Protocol(
    first="long",
    system_prompts={"long": LONG_PROMPT, "short": SHORT_PROMPT},
    opening={"long": THINK, "short": ANSWER},
    closings={"long": {END_THINK: "short"}, "short": {END_ANSWER: None, RETHINK: "long"}},
)
