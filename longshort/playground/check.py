"""How good is a pair? Plays the protocol in plain torch, so that the answer depends on no engine.

Run ``python -m longshort.playground.check [pair]``; it writes JSON to standard output.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from longshort.episode import Problem
from longshort.playground.corpus import LINE
from longshort.playground.problems import difficulty, generate_problems, steps_of
from longshort.playground.tokenizer import render_prompt

CLOSING = {"long": ("</think>",), "short": ("</answer>", "</rethink>")}
WELL_FORMED = {
    "long": re.compile(r"<think>[^<>]+</think>"),
    "short": re.compile(r"<answer>[^<>]+(?:</answer>|</rethink>)"),
}
MAX_TURNS = 6
MAX_TURN_TOKENS = 300
BATCH = 128


@dataclass(frozen=True, slots=True)
class Member:
    """One role's model and tokenizer."""

    role: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Played:
    """A problem, the text of every turn, and the sampled tokens of every turn."""

    problem: Problem
    turns: tuple[str, ...]
    tokens: tuple[int, ...]

    @property
    def correct(self) -> bool:
        """Whether the last turn closes the conversation with the right number in its last box."""
        boxes = re.findall(r"\\boxed\{(\d+)\}", self.turns[-1])
        return self.turns[-1].endswith("</answer>") and boxes[-1:] == [self.problem.answer]

    @property
    def well_formed(self) -> bool:
        """Whether every turn follows its role's template."""
        return all(WELL_FORMED["long" if i % 2 == 0 else "short"].fullmatch(turn) for i, turn in enumerate(self.turns))

    @property
    def repeated_steps(self) -> int:
        """Lines that stand in the conversation already."""
        lines = LINE.findall(" ".join(self.turns))
        return len(lines) - len(set(lines))

    @property
    def wrong_lines(self) -> int:
        """Lines whose result is not that of their operation."""
        lines = LINE.findall(" ".join(self.turns))
        return sum(steps_of("".join(line[:3]))[0][-1] != int(line[3]) for line in lines)

    @property
    def rethinks(self) -> int:
        """How often the short model sent the problem back."""
        return sum(turn.endswith("</rethink>") for turn in self.turns)


def load_member(folder: Path, role: str) -> Member:
    """The model and tokenizer of ``role`` in a pair's folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder / role)
    return Member(role, AutoModelForCausalLM.from_pretrained(folder / role).eval(), tokenizer)


def play(long: Member, short: Member, problems: Sequence[Problem], seed: int, temperature: float = 1.0) -> list[Played]:
    """Play every problem once, long first, to ``</answer>``, a turn without closing tag, or ``MAX_TURNS``."""
    torch.manual_seed(seed)
    turns: list[list[str]] = [[] for _ in problems]
    tokens: list[list[int]] = [[] for _ in problems]
    running = list(range(len(problems)))
    for turn in range(MAX_TURNS):
        member = short if turn % 2 else long
        still: list[int] = []
        for start in range(0, len(running), BATCH):
            chosen = running[start : start + BATCH]
            contexts = [render_prompt(problems[i].question) + "".join(turns[i]) for i in chosen]
            for i, ids in zip(chosen, _sample(member, contexts, temperature), strict=True):
                text = member.tokenizer.decode(ids)
                turns[i].append(text)
                tokens[i].append(len(ids))
                if text.endswith(("</think>", "</rethink>")):
                    still.append(i)
        running = still
    return [Played(p, tuple(t), tuple(n)) for p, t, n in zip(problems, turns, tokens, strict=True)]


def figures(long: Member, short: Member, count: int, seed: int) -> dict[str, object]:
    """Shares, means and tables by number of operations over ``count`` test problems at temperature 1."""
    problems = generate_problems(count, seed, "test")
    played = play(long, short, problems, seed)
    return {
        "problems": count,
        "seed": seed,
        "accuracy": mean(episode.correct for episode in played),
        "well_formed": mean(episode.well_formed for episode in played),
        "rethink_share": mean(episode.rethinks > 0 for episode in played),
        "tokens": mean(sum(episode.tokens) for episode in played),
        "tokens_long": mean(sum(episode.tokens[::2]) for episode in played),
        "tokens_short": mean(sum(episode.tokens[1::2]) for episode in played),
        "wrong_line_share": mean(episode.wrong_lines > 0 for episode in played),
        "repeated_steps": mean(episode.repeated_steps for episode in played),
        "accuracy_by_operations": _by_operations({e.problem: float(e.correct) for e in played}),
    }


def _by_operations(values: Mapping[Problem, float]) -> dict[str, float]:
    groups: dict[int, list[float]] = {}
    for problem, value in values.items():
        groups.setdefault(difficulty(problem), []).append(value)
    return {str(operations): round(mean(groups[operations]), 4) for operations in sorted(groups)}


@torch.inference_mode()
def _sample(member: Member, contexts: Sequence[str], temperature: float) -> list[list[int]]:
    """Sampled ids of one turn for each context, the closing tag included."""
    tokenizer = member.tokenizer
    inputs = tokenizer(list(contexts), return_tensors="pt", padding=True, padding_side="left")
    ends = [*tokenizer.convert_tokens_to_ids(list(CLOSING[member.role])), tokenizer.eos_token_id]
    output = member.model.generate(
        **inputs,
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=MAX_TURN_TOKENS,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
    )
    sampled = output[:, inputs["input_ids"].shape[1] :].tolist()
    stops = [next((i + 1 for i, token in enumerate(row) if token in ends), len(row)) for row in sampled]
    return [row[:stop] for row, stop in zip(sampled, stops, strict=True)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pair", type=Path, nargs="?", default=Path(__file__).parent / "models")
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    pair = (load_member(arguments.pair, "long"), load_member(arguments.pair, "short"))
    sys.stdout.write(json.dumps(figures(*pair, arguments.problems, arguments.seed), indent=2) + "\n")


if __name__ == "__main__":
    main()
