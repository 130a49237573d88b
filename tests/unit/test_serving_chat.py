"""The terminal conversation with a scripted pair, and its lines from a real terminal."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from serving_fakes import ANSWER, THOUGHT, ChatTokenizer, SlowGenerator, fake_pair

from longshort.pair import Pair
from longshort.scripted import Script
from longshort.serving.chat import Conversation, Lines, converse
from longshort.serving.open import controller_of
from longshort.serving.prompts import Prompts
from workers.errors import EngineDiedError


def conversation(
    long: Script = THOUGHT, short: Script = ANSWER, pair: Pair | None = None
) -> tuple[Conversation, io.StringIO]:
    pair, tokenizer, output = pair or fake_pair(), ChatTokenizer(), io.StringIO()
    generators = {role: SlowGenerator(script, tokenizer) for role, script in (("long", long), ("short", short))}
    tokenizers = dict.fromkeys(generators, tokenizer)
    controller = controller_of(pair, tokenizers, dict(generators))
    console = Console(file=output, width=200)
    return Conversation(pair, controller, Prompts(pair.protocol, tokenizers), console), output


def typed(*lines: str) -> Iterator[str]:
    yield from lines


async def talk(with_pair: Conversation, *lines: str) -> None:
    source = typed(*lines)

    def read() -> str:
        line = next(source, None)
        if line is None:
            raise EOFError
        return line

    await converse(with_pair, Lines(read))


async def test_every_turn_is_shown_with_its_tokens_and_time() -> None:
    pair, output = conversation()
    await talk(pair, "1+1?")
    lines = output.getvalue().splitlines()
    assert lines[:2] == ["long", "let me see"]
    assert lines[2].startswith("12 tokens, ")
    assert lines[3:5] == ["short", "it is \\boxed{5}"]
    assert lines[5].startswith("17 tokens, ")


async def test_the_conversation_goes_on_and_can_begin_anew() -> None:
    pair, _output = conversation()
    await talk(pair, "one?", "two?")
    assert [(m.role, m.content) for m in pair.messages[:3]] == [
        ("user", "one?"),
        ("assistant", "it is \\boxed{5}"),
        ("user", "two?"),
    ]
    await talk(pair, "/new")
    assert (pair.messages, pair.played) == ([], [])


async def test_thinking_can_be_hidden_and_the_answer_is_shown() -> None:
    pair, output = conversation(short=["<answer>not yet</rethink>", ANSWER])
    await talk(pair, "/long", "/short", "1+1?", "/long")
    shown = output.getvalue()
    assert "let me see" not in shown
    assert "not yet" not in shown
    assert "it is \\boxed{5}" in shown
    assert pair.hidden == {"short"}


async def test_a_budget_holds_until_it_is_taken_back() -> None:
    pair, output = conversation(long="<think>" + "x" * 90 + "</think>")
    await talk(pair, "/budget 36", "1+1?", "/budget", "/budget many", "/budget 0")
    assert pair.played[0].episode.tokens <= 36
    assert re.search(r"^16 tokens, \d+\.\d s, cut$", output.getvalue(), re.MULTILINE)
    assert pair.budget is None
    assert "/budget many is no number of tokens" in output.getvalue()


async def test_a_conversation_is_saved_as_it_was(tmp_path: Path) -> None:
    pair, output = conversation()
    await talk(pair, "1+1?", f"/save {tmp_path / 'talk.json'}", "/save", f"/save {tmp_path}/none/x.json")
    told = json.loads((tmp_path / "talk.json").read_text())
    assert told["messages"] == [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "it is \\boxed{5}"},
    ]
    assert [turn["text"] for turn in told["answers"][0]["turns"]] == [THOUGHT, ANSWER]
    assert "needs the name of a file" in output.getvalue()
    assert "cannot be written (No such file or directory)" in output.getvalue()


async def test_quit_ends_and_an_unknown_command_lists_all() -> None:
    pair, output = conversation()
    await talk(pair, "/what", "/quit", "1+1?")
    assert "/budget N, /save FILE" in output.getvalue()
    assert pair.messages == []


async def test_what_cannot_be_answered_is_said_and_forgotten() -> None:
    pair, output = conversation(pair=fake_pair(context=60))
    await talk(pair, "x" * 80)
    assert "leaves no room for an answer; shorten it; /new begins anew" in output.getvalue()
    assert pair.messages == []
    pair, output = conversation(long=[EngineDiedError("long", "killed")])
    await talk(pair, "1+1?")
    assert "it is started again, ask once more" in output.getvalue()


async def test_an_interrupt_stops_the_answer_and_not_the_conversation() -> None:
    pair, output = conversation()
    forever, begun = asyncio.Event(), asyncio.Event()

    async def wait(request: object) -> None:
        begun.set()
        await forever.wait()

    generator = pair.controller.members["long"].generator
    assert isinstance(generator, SlowGenerator)
    generator.gate = wait
    talking = asyncio.create_task(talk(pair, "1+1?"))
    await begun.wait()
    os.kill(os.getpid(), 2)
    await asyncio.wait_for(talking, 5)
    assert "stopped; what was asked is forgotten" in output.getvalue()
    assert (pair.messages, generator.freed) == ([], 1)


async def test_what_would_steer_the_terminal_is_not_shown() -> None:
    pair, output = conversation(long="<think>a\x0bb\rc</think>")
    await talk(pair, "1+1?")
    assert "abc" in output.getvalue()


PROGRAM = """
import asyncio, sys
sys.path.insert(0, {tests!r})
from test_serving_chat import conversation
from longshort.serving.chat import PROMPT, Lines, converse
from rich.console import Console
async def main():
    pair, _ = conversation()
    pair.console = Console(width=80, force_terminal=True)
    await converse(pair, Lines(lambda: input(PROMPT)))
asyncio.run(main())
"""


def test_on_a_terminal_roles_have_colours() -> None:
    """Under a pseudo-terminal, as a user sees it."""
    main, other = pty.openpty()
    program = PROGRAM.format(tests=str(Path(__file__).parent))
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", program], stdin=other, stdout=other, env=environment)
    os.close(other)
    os.write(main, b"1+1?\n\x04")
    seen = b""
    while True:
        try:
            piece = os.read(main, 4096)
        except OSError:
            break
        seen += piece
        if not piece:
            break
    os.close(main)
    assert process.wait(30) == 0
    assert b"\x1b[36mlet me see" in seen or b"\x1b[36ml" in seen
    assert b"\x1b[1;32mshort" in seen
