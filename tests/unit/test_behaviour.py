"""Behaviour: words that are counted, phases that a judge labels, perplexity under a model, and what is kept of them.

Not proved here: that a judge labels phases as people would, and that the lists of phrases are complete.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from fakes import play
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig

from longshort.config import build_config
from longshort.display import Display
from longshort.episode import Episode, Problem
from longshort.evaluation.behaviour.perplexity import (
    Reference,
    batches,
    perplexity_numbers,
    score_episodes,
)
from longshort.evaluation.behaviour.phases import PHASES, Judging, label_phases, phase_numbers, steps_of
from longshort.evaluation.behaviour.run import behaviour, read_behaviour
from longshort.evaluation.behaviour.words import AHA, REFLECTION, count_phrases, word_numbers
from longshort.evaluation.records import SUMMARY, Evaluated, sample_id
from longshort.generation import Generator
from longshort.playground import model_path
from longshort.scripted import Request, ScriptedGenerator
from longshort.stages import run_stage


def conversation(thinking: str, answer: str = "5", key: str = "p0") -> Episode:
    episode = play([f"<think>{thinking}</think>"], [f"<answer>{answer}</answer>"])
    return replace(episode, problem=Problem(key, f"question {key}?", "5"))


# Words


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        ("Wait, is it 5?", {"wait": 1}),
        ("But  WAIT. wait!", {"but wait": 1, "wait": 1}),
        ("A waiter awaits.", {}),
        ("Let me double-check.", {"double-check": 1}),
        ("That can\u2019t be right", {"that can't be right": 1}),
        ("等等, 不对. 再想想", {"等等": 1, "不对": 1, "再想想": 1}),
        ("等wait一下, 嗯hold on。", {"wait": 1, "嗯": 1, "hold on": 1}),
        ("_Wait_ 2wait", {"wait": 2}),
        ("But\u00a0wait", {"but wait": 1}),
        # A dotless i, a dotted I and a long s are other letters.
        ("wa\u0131t WA\u0130T perhap\u017f", {}),
        ("不对称, 不对应, 不对等, 不对!", {"不对": 1}),
        ("不可能, 尽可能, 可能", {"可能": 1}),
        ("苹果、梨等等, 等等, 我们等等", {"等等": 2}),
    ],
)
def test_reflection_is_counted_by_the_longest_phrase_that_fits(text: str, counted: dict[str, int]) -> None:
    assert count_phrases(text, REFLECTION) == counted


PIECES = ("wait", "But", " ", "a", "ha", "x", "再", "再想想", "想想")
PHRASES = {"en": ("wait", "aha", "but wait"), "zh": ("想想", "再想想")}


@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_at_every_place_the_longest_phrase_that_fits_is_counted(text: str) -> None:
    def fits(phrase: str, start: int) -> bool:
        around = f" {text} "[start] + f" {text} "[start + len(phrase) + 1 :][:1]
        whole = not phrase.isascii() or not any(each.isascii() and each.isalpha() for each in around)
        return text.lower().startswith(phrase, start) and whole

    counted: Counter[str] = Counter()
    start = 0
    while start < len(text):
        fitting = [phrase for found in PHRASES.values() for phrase in found if fits(phrase, start)]
        counted.update(fitting and [max(fitting, key=len)])
        start += max(map(len, fitting), default=1)
    assert count_phrases(text, PHRASES) == counted


def test_moments_of_rethinking_are_found_in_both_languages() -> None:
    assert count_phrases("Maybe I'm overthinking this.", AHA) == {"maybe i'm overthinking": 1}
    assert count_phrases("This needs to be  reconsidered", AHA) == {"needs to be reconsidered": 1}
    assert count_phrases("我可能想多了", AHA) == {"想多了": 1}
    assert count_phrases("这不对称, 这不对", AHA) == {"这不对": 1}
    assert count_phrases("I thought about it.", AHA) == {}


def test_words_are_counted_for_tokens_and_moments_for_conversations() -> None:
    episodes = [conversation("wait wait"), conversation("Let me rethink"), conversation("so it is")]
    numbers = word_numbers(episodes)
    tokens = sum(episode.tokens for episode in episodes)
    assert numbers["reflection"] == {"wait": pytest.approx(2000 / tokens)}
    assert numbers["reflection_per_1000_tokens"] == pytest.approx(2000 / tokens)
    assert numbers["reflection_share"] == numbers["aha_share"] == pytest.approx(1 / 3)
    assert numbers["aha"] == {"let me rethink": pytest.approx(1 / 3)}


# Phases

THINKING = conversation("read it\n\n2+3\n\n=5", "so 5")
LABELS = [(1, 1, "understanding"), (2, 3, "computing"), (4, 4, "finalising")]


def blocks(labels: list[tuple[int, int, str]]) -> str:
    return json.dumps({f"block {i}": {"start": s, "end": e, "block type": t} for i, (s, e, t) in enumerate(labels)})


def test_steps_are_those_of_all_turns_without_tags() -> None:
    assert [step.strip() for step in steps_of(THINKING)] == ["read it", "2+3", "=5", "so 5"]


async def test_the_judges_blocks_become_characters_of_phases() -> None:
    judge = ScriptedGenerator([blocks(LABELS)])
    record = await label_phases(judge, THINKING, Judging())
    assert record["phases"].keys() == {"understanding", "computing", "finalising"}
    assert record["phases"]["computing"] == len("2+3\n\n=5")
    numbers = phase_numbers([record])
    assert sum(numbers["shares"].values()) == pytest.approx(1)
    assert list(numbers["shares"]) == list(PHASES) and len(PHASES) == 10
    assert (numbers["judged"], numbers["refused"], numbers["refused_answers"]) == (1, 0, 0)
    schema = judge.requests[0].params.json_schema
    assert schema is not None and schema["additionalProperties"]["properties"]["block type"]["enum"] == list(PHASES)


@pytest.mark.parametrize(
    ("rubbish", "fault"),
    [
        ("I like it.", "holds no JSON"),
        (blocks([(1, 4, "dreaming")]), '"dreaming" is none of the ten types'),
        (blocks([(1, 3, "computing")]), "the last step is 4"),
        (blocks([(1, 2, "computing"), (2, 4, "finalising")]), "may be in one block only"),
    ],
)
async def test_rubbish_of_the_judge_is_told_to_it_and_counted(rubbish: str, fault: str) -> None:
    mended = ScriptedGenerator([rubbish, blocks(LABELS)])
    record = await label_phases(mended, THINKING, Judging(retries=1))
    assert record["phases"] is not None and fault in record["faults"][0]
    assert fault in mended.requests[1].prompt.messages[-1]["content"]  # type: ignore[union-attr]
    given_up = await label_phases(ScriptedGenerator([rubbish]), THINKING, Judging(retries=1))
    numbers = phase_numbers([record, given_up])
    assert given_up["phases"] is None
    assert (numbers["judged"], numbers["refused"], numbers["refused_answers"]) == (1, 1, 3)
    assert max(numbers["faults"].values()) == 3


async def test_what_no_judge_could_hold_is_skipped_and_counted() -> None:
    judge = ScriptedGenerator([])
    long = await label_phases(judge, THINKING, Judging(max_characters=5))
    empty = await label_phases(judge, replace(THINKING, turns=()), Judging())
    assert not judge.requests
    numbers = phase_numbers([long, empty])
    assert (numbers["judged"], numbers["refused"], numbers["skipped"], numbers["shares"]) == (0, 0, 2, None)
    assert "more than the 5" in long["faults"][0]


# Perplexity


@pytest.fixture(scope="module")
def reference() -> Reference:
    from transformers import AutoTokenizer

    path = str(model_path("short"))
    return Reference(path, "cpu", AutoTokenizer.from_pretrained(path))


CHAINS = [conversation(text, key=f"p{i}") for i, text in enumerate(["1+2=3", "7+5=12\n\n12*3=36", "x" * 50])]


def test_perplexity_is_that_of_the_text_alone_computed_token_by_token(reference: Reference) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(model_path("short")), dtype=torch.float32)
    for record, episode in zip(score_episodes(reference, CHAINS), CHAINS, strict=True):
        tokenizer = reference.tokenizer
        messages = [{"role": "user", "content": episode.problem.question}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
        text = tokenizer.encode("".join(turn.text for turn in episode.turns), add_special_tokens=False)
        with torch.no_grad():
            log_probs = torch.log_softmax(model(torch.tensor([[*prompt, *text]])).logits[0], dim=-1)
        nll = -sum(log_probs[len(prompt) - 1 + i, token].item() for i, token in enumerate(text))
        assert record["tokens"] == len(text) and not record["cut"]
        assert record["nll"] == pytest.approx(nll, rel=1e-4)


def test_a_text_beyond_the_context_is_cut_and_said_to_be(reference: Reference) -> None:
    whole = score_episodes(reference, CHAINS)[2]
    context, reference.context = reference.context, 40
    try:
        cut = score_episodes(reference, CHAINS)[2]
    finally:
        reference.context = context
    assert cut["cut"] and cut["tokens"] < whole["tokens"] and cut["nll"] < whole["nll"]


def test_logits_in_parts_give_the_same(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    before = score_episodes(reference, CHAINS)
    monkeypatch.setattr("longshort.evaluation.behaviour.perplexity.LOGIT_ROWS", 7)
    after = score_episodes(reference, CHAINS)
    assert [r["nll"] for r in after] == pytest.approx([r["nll"] for r in before], rel=1e-5)


def test_perplexity_weighs_tokens_and_its_median_conversations() -> None:
    records = [{"tokens": t, "nll": n, "cut": False} for t, n in ((1, 1.0), (3, 6.0), (2, 6.0), (0, 0.0))]
    numbers = perplexity_numbers(records)
    assert numbers["perplexity"] == pytest.approx(math.exp(13 / 6))
    assert numbers["median"] == pytest.approx(math.exp(2))
    assert numbers["conversations"] == 3
    assert perplexity_numbers([])["perplexity"] is None


def test_batches_hold_all_conversations_and_few_tokens() -> None:
    found = batches(CHAINS, tokens=60)
    assert sorted(index for batch in found for index in batch) == [0, 1, 2]
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(CHAINS[index].tokens for index in batch) <= 60


# The command


@cache
def built(*overrides: str) -> DictConfig:
    return build_config("evaluate_playground", overrides)


JUDGED = ("+models.judge.endpoint={url: 'http://127.0.0.1:1/v1', model: j}",)
SCORED = ("+models.reference.model.path=playground:short",)


async def evaluated(folder: Path, episodes: Sequence[Episode] = CHAINS) -> None:
    """An evaluation as its command leaves it."""
    items = {sample_id(e.problem.id, s): Evaluated(replace(e, sample=s), True) for e in episodes for s in range(2)}

    async def work(item: Evaluated) -> dict[str, object]:
        return item.to_record()

    (folder / "mine.jsonl").unlink(missing_ok=True)
    await run_stage(folder, "mine", items, work, {})
    (folder / SUMMARY).write_text(json.dumps({"model": {}, "settings": {}, "benchmarks": {}, "average": {}}))


async def read_again(folder: Path, *overrides: str, judge: Generator | None = None, problems: int | None = 2) -> None:
    config = deepcopy(built(*overrides))
    config.evaluation.folder, config.evaluation.behaviour.problems = str(folder), problems

    @asynccontextmanager
    async def open_model(name: str) -> AsyncIterator[Generator]:
        assert name == "judge" and judge is not None
        yield judge

    with Display() as display:
        await behaviour(config, display, open_model)


async def test_words_need_no_model(tmp_path: Path) -> None:
    await evaluated(tmp_path)
    assert read_behaviour(tmp_path) is None
    await read_again(tmp_path)
    numbers = read_behaviour(tmp_path)
    assert numbers is not None and numbers["mine"].keys() == {"words"}


async def test_judge_and_reference_read_the_first_sample_of_problems_and_nothing_twice(tmp_path: Path) -> None:
    await evaluated(tmp_path)
    judge = ScriptedGenerator(lambda request: blocks([(1, 99, "computing")]))
    await read_again(tmp_path, *JUDGED, *SCORED, judge=judge)
    assert len(judge.requests) == 2 * 3, "two conversations, each asked again twice"
    numbers = read_behaviour(tmp_path)
    assert numbers is not None
    assert numbers["mine"]["phases"]["refused"] == numbers["mine"]["perplexity"]["conversations"] == 2
    again = ScriptedGenerator([])
    await read_again(tmp_path, *JUDGED, *SCORED, judge=again)
    assert not again.requests and read_behaviour(tmp_path) == numbers


def labelling() -> ScriptedGenerator:
    """A judge that labels all of CHAINS."""

    def reply(request: Request) -> str:
        assert not isinstance(request.prompt, tuple)
        count = request.prompt.messages[-1]["content"].count("\nStep ")
        return blocks([(1, count, "computing")])

    return ScriptedGenerator(reply)


CHANGED = conversation("2*3=6", key="p1")
OTHER = (JUDGED[0].replace("model: j", "model: k"),)


async def test_a_call_without_judge_or_reference_keeps_what_they_found(tmp_path: Path) -> None:
    await evaluated(tmp_path)
    await read_again(tmp_path, *SCORED)
    await read_again(tmp_path, *JUDGED, judge=labelling())
    both = read_behaviour(tmp_path)
    assert both is not None and both["mine"].keys() == {"words", "phases", "perplexity"}
    await read_again(tmp_path)
    assert read_behaviour(tmp_path) == both


async def test_nothing_is_kept_of_other_conversations(tmp_path: Path) -> None:
    await evaluated(tmp_path)
    await read_again(tmp_path, *JUDGED, judge=labelling())
    await evaluated(tmp_path, CHAINS[:2])
    await read_again(tmp_path)
    found = read_behaviour(tmp_path)
    assert found is not None and found["mine"].keys() == {"words"}


async def test_more_problems_add_to_labels_and_scores_and_fewer_take_none_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await evaluated(tmp_path)
    asked, scored = [], []
    whole = Reference.score

    def score(self: Reference, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
        scored.append(len(rows))
        return whole(self, rows)

    monkeypatch.setattr(Reference, "score", score)
    for problems in (1, 3, 2, 3):
        judge = labelling()
        await read_again(tmp_path, *JUDGED, *SCORED, judge=judge, problems=problems)
        asked.append(len(judge.requests))
        found = read_behaviour(tmp_path)
        assert found is not None
        assert found["mine"]["phases"]["judged"] == found["mine"]["perplexity"]["conversations"] == problems
    assert asked == [1, 2, 0, 0] and sum(scored) == 3


async def test_another_judge_or_way_of_asking_has_files_of_its_own(tmp_path: Path) -> None:
    await evaluated(tmp_path)
    asked = []
    for overrides in (JUDGED, OTHER, (*JUDGED, "evaluation.behaviour.judge.max_tokens=99"), JUDGED):
        judge = labelling()
        await read_again(tmp_path, *overrides, judge=judge)
        asked.append(len(judge.requests))
    assert asked == [2, 2, 2, 0]
    assert len(list((tmp_path / "behaviour").glob("mine.phases-*.jsonl"))) == 3


async def test_another_text_of_a_sample_is_labelled_anew(tmp_path: Path) -> None:
    await evaluated(tmp_path)
    await read_again(tmp_path, *JUDGED, judge=labelling())
    await evaluated(tmp_path, [CHAINS[0], CHANGED])
    judge = labelling()
    await read_again(tmp_path, *JUDGED, judge=judge)
    assert len(judge.requests) == 1


@pytest.mark.parametrize("name", ["judge", "reference"])
async def test_other_weights_of_a_reader_are_another_reader(tmp_path: Path, name: str) -> None:
    folder, model = tmp_path / "e", tmp_path / "model"
    folder.mkdir()
    await evaluated(folder)
    shutil.copytree(model_path("short"), model)
    await read_again(folder, f"+models.{name}.model.path={model}", judge=labelling())
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    await read_again(folder, f"+models.{name}.model.path={model}", judge=labelling())
    stage = {"judge": "phases", "reference": "perplexity"}[name]
    assert len(list((folder / "behaviour").glob(f"mine.{stage}-*.jsonl"))) == 2


async def test_an_unknown_setting_of_the_judge_is_named(tmp_path: Path) -> None:
    await evaluated(tmp_path)
    with pytest.raises(ValueError, match=r"behaviour\.judge\.top_p is unknown; there are: retries, max_tokens"):
        await read_again(tmp_path, *JUDGED, "+evaluation.behaviour.judge.top_p=0.9", judge=labelling())


async def test_conversations_that_no_judge_was_asked_about_are_no_refused_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await evaluated(tmp_path)
    await read_again(tmp_path, *JUDGED, "evaluation.behaviour.judge.max_characters=3", judge=ScriptedGenerator([]))
    found = read_behaviour(tmp_path)
    assert found is not None
    assert (found["mine"]["phases"]["skipped"], found["mine"]["phases"]["faults"]) == (2, {})
    assert "answers of the judge refused" not in capsys.readouterr().out


async def test_a_folder_without_an_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no evaluation \(summary\.json\)"):
        await read_again(tmp_path)
    (tmp_path / SUMMARY).write_text(json.dumps({"settings": {}, "benchmarks": {}}))
    with pytest.raises(ValueError, match="no benchmark that was played to its end"):
        await read_again(tmp_path)
