"""One choice of a request: the episode that is played for it, and what of it is shown where.

Thinking is what the long model writes and what the short one writes before it hands back; the answer is the short
model's last turn. Which of the two a turn is that may still hand back is known when it ends: its text waits until then.

Concurrency: one coroutine per choice. It waits for its own turns; whoever sends the reply is woken by ``changed``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from longshort.controller import Sampling, SynergyController
from longshort.episode import Episode, Ids, Problem, Turn
from longshort.protocol import TAGS
from longshort.serving.visible import UntilStop, Visible

Channel = Literal["reasoning_content", "content", "turn"]
BREAK = "\n\n"


@dataclass(frozen=True, slots=True)
class Piece:
    """Text to show.

    Attributes:
        channel: ``reasoning_content``, ``content``, or ``turn`` for what is sampled of any turn as it comes.
        turn: number of the turn, from 0.
        role: who wrote it.
    """

    channel: Channel
    turn: int
    role: str
    text: str


@dataclass(frozen=True, slots=True)
class PlayedTurn:
    """A turn with what only the player knows: its budget in tokens and how long it took, in seconds."""

    turn: Turn
    budget: int
    seconds: float
    first_token_s: float | None


@dataclass(frozen=True)
class Played:
    """A choice that is over.

    Attributes:
        reasoning, content: what was shown.
        stopped: whether one of the client's stop texts ended the content.
    """

    episode: Episode
    turns: tuple[PlayedTurn, ...]
    reasoning: str
    content: str
    stopped: bool

    @property
    def finish_reason(self) -> str:
        """OpenAI's: ``length`` where a limit left no answer, or only part of one."""
        cut = self.episode.outcome in ("token_limit", "turn_limit")
        return "length" if cut and not self.stopped else "stop"


class Choice:
    """Listens to an episode and sorts its text; implements :class:`longshort.controller.Listener`.

    Args:
        stops: the client's; they end the content.
        changed: called when there is something new to send.
        live: whether to pass on every turn's text as it is sampled too.
        hidden: tags and special tokens, which are not shown.
    """

    def __init__(
        self,
        stops: Sequence[str] = (),
        changed: Callable[[], None] = lambda: None,
        live: bool = False,
        hidden: Sequence[str] = TAGS,
    ) -> None:
        self.turns: list[PlayedTurn] = []
        self._changed = changed
        self._live = live
        self._hidden = hidden
        self._pieces: list[Piece] = []
        self._shown: dict[Channel, list[str]] = {"reasoning_content": [], "content": [], "turn": []}
        self._until_stop = UntilStop(stops)

    def turn_begins(self, role: str, may_answer: bool, must_answer: bool) -> None:
        self._role, self._visible, self._waiting = role, Visible(self._hidden), ""
        self._began = time.perf_counter()
        self._first: float | None = None
        self._channel: Channel | None = "content" if must_answer else None if may_answer else "reasoning_content"
        self._starts = True

    def hears(self, text: str, tokens: int) -> None:
        if self._first is None:
            self._first = time.perf_counter() - self._began
        self._sort(self._visible.feed(text))

    def turn_ends(self, turn: Turn, over: bool, budget: int) -> None:
        self._sort(self._visible.end())
        if self._channel is None:
            # Only now it is known what the turn was.
            self._show("content" if over else "reasoning_content", self._waiting)
        self.turns.append(PlayedTurn(turn, budget, time.perf_counter() - self._began, self._first))

    def take(self) -> list[Piece]:
        """What has come since the last call, text of one kind and turn in one piece."""
        taken, self._pieces = self._pieces, []
        return taken

    def over(self, episode: Episode) -> Played:
        """The episode as it was shown, once it is over."""
        self._add("content", self._until_stop.end())
        reasoning, content = ("".join(self._shown[channel]) for channel in ("reasoning_content", "content"))
        return Played(episode, tuple(self.turns), reasoning, content, self._until_stop.stopped)

    def _sort(self, text: str) -> None:
        if not text:
            return
        if self._live:
            self._add("turn", text)
        if self._channel is None:
            self._waiting += text
        else:
            self._show(self._channel, text)

    def _show(self, channel: Channel, text: str) -> None:
        if text and self._starts:
            text = (BREAK if self._shown[channel] else "") + text
            self._starts = False
        self._add(channel, self._until_stop.feed(text) if channel == "content" else text)

    def _add(self, channel: Channel, text: str) -> None:
        if text:
            self._shown[channel].append(text)
            turn = len(self.turns)
            if self._pieces and (self._pieces[-1].channel, self._pieces[-1].turn) == (channel, turn):
                text = self._pieces.pop().text + text
            self._pieces.append(Piece(channel, turn, self._role, text))
            self._changed()


async def play_choice(
    controller: SynergyController,
    prompts: Mapping[str, Ids],
    conversation: str,
    number: int,
    sampling: Sampling,
    choice: Choice,
) -> Played:
    """Play choice ``number`` of a request; ``conversation`` names what its turns' seeds and sessions go by."""
    problem = Problem(conversation, "", "")
    episode = await controller.play(problem, number, sampling, prompts, choice)
    return choice.over(episode)
