"""Baselines: what a model is asked, where its thinking is cut, and that all it writes and reads is counted.

Not proved here: that they make a model shorter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from copy import deepcopy
from functools import cache

import pytest
from fakes import FakeGenerator, FakeTokenizer
from omegaconf import DictConfig

from longshort.config import build_config
from longshort.controller import Limits, Member, Sampling
from longshort.episode import Episode, Problem
from longshort.evaluation.baselines import ANSWER, ESTIMATE, estimated_budget
from longshort.evaluation.variants import make_variants
from longshort.scripted import Reply
from longshort.solo import SOLO
from longshort.validation import validate

PROBLEM = Problem("p", "1+1?", "2")
END = "<|end|>"


class SoloTokenizer(FakeTokenizer):
    """Also of a chat without system prompt; ``opened`` is what its template writes behind the question."""

    def __init__(self, opened: str = "") -> None:
        super().__init__()
        self.opened = opened

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: object) -> list[int]:
        return self.encode(f"[{conversation[-1]['content']}]{self.opened}", add_special_tokens=False)


@cache
def built(name: str) -> DictConfig:
    return build_config(name)


def recipe(*changes: str, name: str = "baseline_plain_playground") -> DictConfig:
    """A recipe that is built once; ``changes`` of ``evaluation.baseline``, as on the command line."""
    config = deepcopy(built(name))
    config.merge_with_dotlist([f"evaluation.baseline.{change}" for change in changes])
    return config


def played(config: DictConfig, replies: Sequence[Reply], opened: str = "") -> tuple[list[Episode], FakeGenerator]:
    """One episode of each variant."""
    tokenizer = SoloTokenizer(opened)
    generator = FakeGenerator(tokenizer, replies)
    limits = Limits(1, {SOLO: 464}, 464)
    variants = make_variants(config, {SOLO: Member(generator, tokenizer, 2000)}, limits)
    return [asyncio.run(variant.controller.play(PROBLEM, 0, Sampling())) for variant in variants], generator


def prompt_of(generator: FakeGenerator, call: int) -> str:
    prompt = generator.requests[call].prompt
    assert isinstance(prompt, tuple)
    return generator.tokenizer.decode(list(prompt), skip_special_tokens=False)


def test_thinking_is_cut_at_the_budget_and_closed_with_the_cue() -> None:
    (episode,), generator = played(
        recipe("name=budget_forcing", "budgets=[20]", "cue=' So: '"),
        ["<think>" + "on and on " * 9, f"\\boxed{{2}}{END}"],
    )
    first, second = episode.turns
    assert (first.role, len(first.token_ids), first.finish_reason) == (SOLO, 20, "length")
    assert first.text == "<think>" + "on and on on and on"[:19] + "</think> So: "
    assert (second.role, second.text, second.well_formed) == (ANSWER, "\\boxed{2}", True)
    assert episode.outcome == "answered" and episode.final_text == "\\boxed{2}"
    assert prompt_of(generator, 1) == prompt_of(generator, 0) + first.text
    assert episode.tokens == 20 + len(second.token_ids), "what the controller wrote is nobody's"
    assert second.prompt_tokens == len(generator.requests[1].prompt)  # type: ignore[arg-type]


def test_thinking_that_ends_in_time_gets_no_cue() -> None:
    (episode,), generator = played(
        recipe("name=budget_forcing", "budgets=[50]", "cue=' So: '"), ["<think>1+1=2</think>", f"\\boxed{{2}}{END}"]
    )
    assert episode.turns[0].text == "<think>1+1=2</think>" and episode.turns[0].well_formed
    assert prompt_of(generator, 1).endswith("</think>")


def test_thinking_that_ends_without_its_tag_is_closed_too() -> None:
    (episode,), _ = played(
        recipe("name=budget_forcing", "budgets=[50]", "cue=' So: '"), [f"<think>2.{END}", f"\\boxed{{2}}{END}"]
    )
    assert episode.turns[0].text == "<think>2.</think> So: " and episode.outcome == "answered"


def test_each_budget_is_a_variant_of_its_own() -> None:
    config = recipe("name=budget_forcing", "budgets=[10,40]")
    generator = FakeGenerator(SoloTokenizer(), [])
    variants = make_variants(config, {SOLO: Member(generator, generator.tokenizer, 2000)}, Limits(1, {SOLO: 464}, 464))
    assert [variant.name for variant in variants] == ["budget-10", "budget-40"]
    assert [variant.settings["baseline"]["budget"] for variant in variants] == [10, 40]
    assert variants[0].settings["limits"] == variants[1].settings["limits"], "the room for an answer is the same"


def test_an_answer_that_is_cut_is_no_answer() -> None:
    config = recipe("name=budget_forcing", "budgets=[20]", "answer_tokens=5")
    (episode,), _ = played(config, ["<think>" + "on " * 20, "\\boxed{2} and so on"])
    assert episode.outcome == "token_limit" and len(episode.turns[1].token_ids) == 5


def test_a_template_that_opens_the_thinking_makes_it_no_worse() -> None:
    (episode,), _ = played(
        recipe("name=budget_forcing", "budgets=[50]"), ["1+1=2</think>", f"\\boxed{{2}}{END}"], opened="<think>\n"
    )
    assert episode.turns[0].well_formed


def test_the_first_thought_ends_thinking() -> None:
    (episode,), generator = played(
        recipe("name=first_thought", "cue=' So: '"), ["<think>1+1=2\n\nWait, again", f"\\boxed{{2}}{END}"]
    )
    assert episode.turns[0].text == "<think>1+1=2\n\n</think> So: "
    assert "\n\n" in generator.requests[0].params.stop and generator.requests[1].params.stop == ()


def test_a_draft_is_asked_for_behind_the_question() -> None:
    (episode,), generator = played(recipe("name=chain_of_draft"), [f"<think>2</think>\\boxed{{2}}{END}"])
    asked = prompt_of(generator, 0)
    assert "1+1?\nThink step by step, but note down only a draft" in asked and "five words" in asked
    assert episode.outcome == "answered" and episode.turns[0].well_formed


# TALE-EP


def test_the_models_estimate_becomes_its_budget_and_its_tokens_count() -> None:
    (episode,), generator = played(recipe("name=tale_ep"), [f"[[25]]{END}", f"<think>2</think>\\boxed{{2}}{END}"])
    estimate, answer = episode.turns
    assert (estimate.role, estimate.text, estimate.well_formed) == (ESTIMATE, "[[25]]", True)
    assert "1+1?\nDo not solve this problem" in prompt_of(generator, 0)
    assert "1+1?\nThink step by step and use less than 25 tokens" in prompt_of(generator, 1)
    assert "[[25]]" not in prompt_of(generator, 1), "the second turn does not see the first"
    assert episode.problem == PROBLEM and episode.outcome == "answered"
    assert episode.tokens == len(estimate.token_ids) + len(answer.token_ids)
    assert episode.context(SOLO)[: answer.prompt_tokens] == generator.requests[1].prompt
    assert generator.requests[0].params.max_tokens == 256
    assert generator.requests[0].params.seed != generator.requests[1].params.seed


def test_without_a_number_the_model_is_asked_to_be_brief_and_that_shows() -> None:
    (episode,), generator = played(recipe("name=tale_ep"), [f"few{END}", f"<think>2</think>\\boxed{{2}}{END}"])
    assert not episode.turns[0].well_formed
    assert "use as few tokens as you can" in prompt_of(generator, 1)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("[[80]]", 80),
        ("About 50 or so: [[ 120 ]].", 120),
        ("I would say 64.", 64),
        ("<think>7 steps, 10 each</think>70", 70),
        ("2,500", 2500),
        ("[[2,500]]", 2500),
        ("[[1,000]] or 7", 1000),
        ("Between 1,200 and 1,234,500.", 1_234_500),
        ("1,2,3", None),
        ("12,34", None),
        ("<think>7 steps, [[10]] each", None),
        ("<think>7</think><think>[[8]]", None),
        ("[[0]]", None),
        ("3.5", None),
        ("none", None),
    ],
)
def test_an_estimate_is_read_as_people_write_it(text: str, budget: int | None) -> None:
    assert estimated_budget(text) == budget


def test_thinking_that_the_template_opened_has_to_be_closed() -> None:
    assert estimated_budget("7 steps, [[10]] each", opened=True) is None
    assert estimated_budget("7 steps</think>[[70]]", opened=True) == 70


@pytest.mark.parametrize(
    ("reply", "opened"),
    [
        ("[[2" + "0" * 300, ""),
        ("[[25]] and then " + "on " * 200, ""),
        (f"<think>about [[25]]{END}", ""),
        (f"about [[25]]{END}", "<think>\n"),
    ],
)
def test_an_estimate_that_was_cut_or_only_thought_is_none(reply: str, opened: str) -> None:
    (episode,), generator = played(recipe("name=tale_ep"), [reply, f"<think>2</think>\\boxed{{2}}{END}"], opened)
    assert not episode.turns[0].well_formed
    assert "use as few tokens as you can" in prompt_of(generator, 1)


def test_an_estimate_behind_thinking_that_the_template_opened_is_one() -> None:
    replies = [f"so so</think>[[25]]{END}", f"2</think>\\boxed{{2}}{END}"]
    (episode,), generator = played(recipe("name=tale_ep"), replies, "<think>\n")
    assert episode.turns[0].well_formed and "use less than 25 tokens" in prompt_of(generator, 1)


# Recipes


@pytest.mark.parametrize(
    ("recipe_name", "overrides", "fault"),
    [
        (
            "evaluate_playground",
            ["name=tale_ep"],
            r"name=tale_ep is for a team of one; set team\.protocol=solo",
        ),
        ("baseline_plain_playground", ["name=magic"], r"baseline\.name=magic is unknown; choose one of none, chain"),
        ("baseline_plain_playground", ["name=budget_forcing"], r"baseline\.budgets is empty; give the budgets"),
        ("baseline_plain_playground", ["budgets=[0]"], r"baseline\.budgets=0 must be a whole number"),
        ("baseline_plain_playground", ["answer_tokens=0"], r"baseline\.answer_tokens=0 must be"),
        ("baseline_plain_playground", ["estimate_tokens=x"], r"baseline\.estimate_tokens=x must be"),
        ("baseline_plain_playground", ["name=first_thought", "thought_end=''"], r"baseline\.thought_end is empty"),
    ],
)
def test_a_baseline_that_cannot_be_played_is_refused(recipe_name: str, overrides: list[str], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        validate(recipe(*overrides, name=recipe_name))
