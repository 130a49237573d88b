"""``longshort chat PAIR``: a conversation in the terminal, every turn as it is written, in the colour of its role.

Concurrency: a thread reads lines, one whenever the conversation waits for one. Ctrl-C ends the answer that is being
written, or else the conversation.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from longshort.controller import SynergyController
from longshort.display import Display
from longshort.episode import Turn
from longshort.folders import write_whole
from longshort.pair import Pair
from longshort.serving.budget import budget_of
from longshort.serving.errors import RequestError
from longshort.serving.open import open_pair
from longshort.serving.play import Choice, Played, play_choice
from longshort.serving.prompts import Prompts
from longshort.serving.request import Message
from longshort.serving.settings import ServingSettings
from workers.errors import EngineDiedError

COLOURS = ("cyan", "green", "magenta", "yellow")
PROMPT = "> "


class TurnWriter(Choice):
    """Writes turns to a console as they are sampled; of a role in ``silent`` the answer only."""

    def __init__(self, console: Console, colours: dict[str, str], silent: set[str], hidden: Sequence[str]) -> None:
        super().__init__(changed=self._write, live=True, hidden=hidden)
        self._console = console
        self._colours = colours
        self._silent = silent

    def turn_begins(self, role: str, may_answer: bool, must_answer: bool) -> None:
        super().turn_begins(role, may_answer, must_answer)
        self._console.print(Text(role, style=f"bold {self._colours[role]}"))

    def turn_ends(self, turn: Turn, over: bool, budget: int) -> None:
        super().turn_ends(turn, over, budget)
        cut = ", cut" if turn.finish_reason == "length" else ""
        words = f"{len(turn.token_ids)} tokens, {self.turns[-1].seconds:.1f} s{cut}"
        self._console.print(Text(f"\n{words}", style="dim"))

    def _write(self) -> None:
        for piece in self.take():
            wanted = "content" if piece.role in self._silent else "turn"
            if piece.channel == wanted:
                style = self._colours[piece.role]
                self._console.print(Text(_printable(piece.text), style=style), end="", soft_wrap=True)


@dataclass
class Conversation:
    """A user and a pair.

    Attributes:
        seed: of the next answer.
        budget: most tokens of an answer, or None.
        hidden: roles whose thinking is not shown.
        messages: so far.
        played: the answers so far.
    """

    pair: Pair
    controller: SynergyController
    prompts: Prompts
    console: Console
    seed: int = 0
    budget: int | None = None
    hidden: set[str] = field(default_factory=set)
    messages: list[Message] = field(default_factory=list)
    played: list[Played] = field(default_factory=list)

    async def answer(self, text: str) -> None:
        """Let the pair answer; what it cannot answer is not kept."""
        asked = [*self.messages, Message("user", text)]
        pair = self.pair
        try:
            prompts = self.prompts(asked)
            budget = budget_of(pair.limits, pair.protocol, pair.contexts, prompts, self.budget, None)
        except RequestError as error:
            self.say(f"{error.message}; /new begins anew")
            return
        colours = dict(zip(pair.protocol.roles, COLOURS, strict=False))
        writer = TurnWriter(self.console, colours, self.hidden, self.prompts.protected)
        sampling = replace(pair.sampling, run=self.seed)
        controller = self.controller.within(budget.limits)
        played = await play_choice(controller, prompts, asked[0].content, 0, sampling, writer)
        self.seed += 1
        self.messages = [*asked, Message("assistant", played.content)]
        self.played.append(played)
        if played.episode.outcome != "answered":
            self.say(f"no whole answer: {played.episode.outcome.replace('_', ' ')}")

    def command(self, line: str) -> bool:
        """Obey ``/name argument``; False where the conversation ends."""
        name, _, argument = line[1:].partition(" ")
        argument = argument.strip()
        commands: dict[str, Callable[[str], None]] = {
            **{role: self._show_or_hide(role) for role in self.pair.protocol.roles},
            "budget": self._set_budget,
            "save": self._save,
            "new": self._begin_anew,
        }
        if name == "quit":
            return False
        if name in commands:
            commands[name](argument)
        else:
            shown = " ".join(f"/{role}" for role in self.pair.protocol.roles)
            self.say(f"{shown}: show or hide thinking, /budget N, /save FILE, /new, /quit")
        return True

    def say(self, text: str) -> None:
        """A line of the program's own."""
        self.console.print(Text(text, style="dim"))

    def _show_or_hide(self, role: str) -> Callable[[str], None]:
        def act(argument: str) -> None:
            self.hidden ^= {role}
            self.say(f"the thinking of {role} is {'hidden' if role in self.hidden else 'shown'}")

        return act

    def _set_budget(self, argument: str) -> None:
        if argument and not (argument.isascii() and argument.isdigit() and 0 < int(argument[:10]) < 2**31):
            self.say(f"/budget {argument} is no number of tokens; give one from 1, or none for no limit")
            return
        self.budget = int(argument) if argument else None
        self.say("no budget" if self.budget is None else f"an answer has at most {self.budget} tokens")

    def _save(self, argument: str) -> None:
        if not argument:
            self.say("/save needs the name of a file")
            return
        file = Path(argument).expanduser()
        try:
            write_whole(file, json.dumps(self.record(), indent=1, ensure_ascii=False) + "\n")
        except OSError as error:
            self.say(f"{file} cannot be written ({error.strerror}); choose another")
            return
        self.say(f"saved to {file}")

    def _begin_anew(self, argument: str) -> None:
        self.messages, self.played = [], []
        self.say("the conversation begins anew")

    def record(self) -> dict[str, Any]:
        """The conversation, as ``/save`` writes it: messages, and how each answer came about."""
        return {
            "pair": self.pair.name,
            "messages": [{"role": message.role, "content": message.content} for message in self.messages],
            "answers": [
                {
                    "outcome": played.episode.outcome,
                    "turns": [
                        {
                            "role": each.turn.role,
                            "text": each.turn.text,
                            "tokens": len(each.turn.token_ids),
                            "seconds": round(each.seconds, 4),
                        }
                        for each in played.turns
                    ],
                }
                for played in self.played
            ],
        }


class Lines:
    """Lines of the terminal, read by a thread that ends with the process."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._wanted = threading.Semaphore(0)
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, daemon=True).start()

    async def next(self) -> str | None:
        """The next line, or None at the end."""
        self._wanted.release()
        return await self._lines.get()

    def end(self) -> None:
        """Nothing more is wanted."""
        self._lines.put_nowait(None)

    def _work(self) -> None:
        line: str | None = ""
        while line is not None:
            self._wanted.acquire()
            try:
                line = self._read()
            except (EOFError, UnicodeDecodeError):
                line = None
            # The loop is closed where the conversation ended meanwhile.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._lines.put_nowait, line)


async def converse(conversation: Conversation, lines: Lines) -> None:
    """Until ``/quit``, the end of the input, or Ctrl-C where nothing is being answered."""
    answering: asyncio.Task[None] | None = None

    def interrupt() -> None:
        if answering is None or not answering.cancel():
            lines.end()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        while (line := await lines.next()) is not None:
            line = line.strip()
            if line.startswith("/"):
                if not conversation.command(line):
                    break
            elif line:
                answering = asyncio.create_task(conversation.answer(line))
                await asyncio.wait([answering])
                if answering.cancelled():
                    conversation.say("\nstopped; what was asked is forgotten")
                elif isinstance(error := answering.exception(), EngineDiedError):
                    conversation.say(f"\n{error}; it is started again, ask once more")
                else:
                    answering.result()
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def chat(spec: Sequence[str], settings: ServingSettings) -> None:
    """Open a pair and talk with it."""
    with suppress(ImportError):
        import readline  # noqa: F401  (gives `input` a history)
    async with AsyncExitStack() as until_the_end:
        with Display() as display:
            opened = await until_the_end.enter_async_context(open_pair(spec, settings, display))
        console = Console(highlight=False)
        conversation = Conversation(opened.pair, opened.controller, opened.prompts, console)
        conversation.seed = int.from_bytes(os.urandom(4), "big")
        conversation.say(f"{opened.pair.name}; /help lists the commands, Ctrl-C stops an answer, Ctrl-D ends")
        await converse(conversation, Lines(lambda: input(PROMPT)))


def _printable(text: str) -> str:
    """Without what would steer the terminal."""
    return "".join(character for character in text if character.isprintable() or character in "\n\t")
