"""The synergy controller: everyone at their own pace, tokens as they were sampled, caps that show, seeds that repeat.

Not proved here: that an engine honours seeds, sessions and stop strings, that it holds thousands of requests at once,
and that Hugging Face's tokenizers keep to the interface as these fakes do.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from fakes import EOS, ROOMY, FakeGenerator, FakeTokenizer, Request, completion_of, controller_of, play, problems
from hypothesis import given, settings
from hypothesis import strategies as st

from longshort.controller import Limits, Member, Sampling, SynergyController, turn_seed
from longshort.episode import Episode, Problem
from longshort.generation import Tokenizer
from longshort.grading import Grade, grade
from longshort.protocol import LONG_SHORT, TAGS
from longshort.rewards import HybridReward, Ramp, group_rewards

THOUGHT, RETHINK, ANSWER = "<think>a</think>", "<answer>b</rethink>", r"<answer>\boxed{5}</answer>"
INT32 = 2**31


def roles(episode: Episode) -> list[str]:
    return [turn.role for turn in episode.turns]


def texts(episode: Episode) -> list[str]:
    return [turn.text for turn in episode.turns]


# The conversation


def test_turns_alternate_until_the_answer() -> None:
    episode = play([THOUGHT, "<think>c</think>"], [RETHINK, ANSWER])
    assert roles(episode) == ["long", "short", "long", "short"]
    assert texts(episode) == [THOUGHT, RETHINK, "<think>c</think>", ANSWER]
    assert episode.outcome == "answered"
    assert all(turn.well_formed and not turn.closing_ids for turn in episode.turns)


def test_a_turn_keeps_what_the_engine_returned() -> None:
    tokenizer = FakeTokenizer()
    sampled = completion_of(tokenizer.encode(THOUGHT, add_special_tokens=False))
    episode = play([sampled], [ANSWER], tokenizers=[tokenizer] * 2)
    turn = episode.turns[0]
    assert (turn.token_ids, turn.log_probs, turn.finish_reason) == (sampled.token_ids, sampled.log_probs, "stop")
    assert turn.cached_tokens == 1
    assert turn.prompt_tokens == len(episode.prompts["long"])
    assert episode.turns[1].prompt_tokens == len(episode.prompts["short"]) + len(sampled.token_ids)


async def test_each_role_is_asked_with_its_own_prompt_stop_strings_and_sampling() -> None:
    tokenizer = FakeTokenizer()
    long, short = FakeGenerator(tokenizer, [THOUGHT]), FakeGenerator(tokenizer, [ANSWER])
    members = {"long": Member(long, tokenizer, 900, 0.7, 0.9, 40), "short": Member(short, tokenizer, 900, 0.3)}
    controller = SynergyController(LONG_SHORT, members, ROOMY)
    await controller.play(problems(1)[0], 0, Sampling())
    await controller.play(problems(1)[0], 1, Sampling(temperature=0.0, top_p=1.0, top_k=5))
    asked = [(r.params.temperature, r.params.top_p, r.params.top_k) for r in (*long.requests, *short.requests)]
    assert asked == [(0.7, 0.9, 40), (0.0, 1.0, 5), (0.3, 1.0, -1), (0.0, 1.0, 5)]
    assert {request.params.stop for request in long.requests} == {("</think>",)}
    assert {request.params.stop for request in short.requests} == {("</answer>", "</rethink>")}
    assert tokenizer.decode(long.requests[0].prompt, False) == (
        f"[{LONG_SHORT.system_prompts['long'][-30:]}|question 0?]"
    )
    assert long.requests[0].prompt != short.requests[0].prompt


TURNS = st.lists(
    st.sampled_from(["<think>", "</think>", "<answer>", "</rethink>", "</answer>", EOS, "ab", "a", "b", " ", "xy"]),
    min_size=1,
    max_size=6,
).map("".join)
SCRIPTS = st.lists(TURNS | st.sampled_from([THOUGHT, RETHINK]), min_size=1, max_size=4)


@settings(max_examples=60)
@given(SCRIPTS, SCRIPTS, st.booleans(), st.integers(1, 12), st.booleans())
def test_contexts_are_append_only(
    long_script: list[str], short_script: list[str], same: bool, cap: int, close: bool
) -> None:
    long_tokenizer = FakeTokenizer(pieces=(*TAGS, "ab"))
    short_tokenizer = long_tokenizer if same else FakeTokenizer(7, pieces=(*TAGS, "xy", "ba"))
    generators = {
        "long": FakeGenerator(long_tokenizer, long_script),
        "short": FakeGenerator(short_tokenizer, short_script),
    }
    limits = Limits(6, {"long": cap, "short": 50}, 400, close_cut_turns=close)
    controller = controller_of(*generators.values(), limits)
    episode = asyncio.run(controller.play(problems(1)[0], 0, Sampling()))
    for role, generator in generators.items():
        own = [turn for turn in episode.turns if turn.role == role]
        asked = [request.prompt for request in generator.requests]
        assert len(asked) == len(own)
        for turn, now, later in zip(own, asked, asked[1:], strict=False):
            assert later[: len(now) + len(turn.token_ids)] == now + turn.token_ids
        view = episode.view(role)
        if view is not None:
            # What trains is what the engine saw and sampled, to the last id.
            assert view.prompt_ids + view.response_ids == asked[-1] + own[-1].token_ids
            sampled = [i for i, mine in zip(view.response_ids, view.mask, strict=True) if mine]
            assert sampled == [i for turn in own for i in turn.token_ids]


# Tokens in, tokens out


def test_readers_of_the_same_vocabulary_get_the_sampled_ids_and_nothing_is_encoded_again() -> None:
    long_tokenizer, short_tokenizer = (FakeTokenizer(pieces=(*TAGS, "ab")) for _ in range(2))
    spelled = long_tokenizer.spell(THOUGHT.replace("a<", "ab<"))
    # The same text has shorter ids, which decoding and encoding would give.
    assert tuple(long_tokenizer.encode("<think>ab</think>", False)) != spelled
    short = FakeGenerator(short_tokenizer, [completion_of(short_tokenizer.spell(RETHINK)), ANSWER])
    long = FakeGenerator(long_tokenizer, [completion_of(spelled)])
    for tokenizer in (long_tokenizer, short_tokenizer):
        tokenizer.encoded.clear()
    episode = asyncio.run(controller_of(long, short).play(problems(1)[0], 0, Sampling()))
    assert episode.turns[0].read_as == {}
    assert short.requests[0].prompt == episode.prompts["short"] + spelled
    assert long.requests[1].prompt == episode.prompts["long"] + spelled + short_tokenizer.spell(RETHINK)
    # The prompts, once per role, and the answer that the fake engine wrote from text.
    assert len(long_tokenizer.encoded) == 1
    assert len(short_tokenizer.encoded) == 2


def test_a_reader_with_another_tokenizer_gets_the_text_in_its_own_ids_and_the_author_its_own() -> None:
    long_tokenizer, short_tokenizer = FakeTokenizer(1, (*TAGS, "ab")), FakeTokenizer(2)
    spelled = long_tokenizer.spell("<think>ab</think>")
    long = FakeGenerator(long_tokenizer, [completion_of(spelled)])
    short = FakeGenerator(short_tokenizer, [RETHINK, ANSWER])
    episode = asyncio.run(controller_of(long, short).play(problems(1)[0], 0, Sampling()))
    read = tuple(short_tokenizer.encode("<think>ab</think>", False))
    assert episode.turns[0].read_as == {"short": read}
    assert short.requests[0].prompt == episode.prompts["short"] + read
    # Back to its author the turn comes as it was sampled, not as the reader would write it.
    rethink = tuple(long_tokenizer.encode(RETHINK, False))
    assert long.requests[1].prompt == episode.prompts["long"] + spelled + rethink


def test_a_partners_turn_is_encoded_once() -> None:
    long_tokenizer, short_tokenizer = FakeTokenizer(1), FakeTokenizer(2)
    long = FakeGenerator(long_tokenizer, [THOUGHT, "<think>c</think>"])
    short = FakeGenerator(short_tokenizer, [RETHINK, RETHINK, ANSWER])
    asyncio.run(controller_of(long, short).play(problems(1)[0], 0, Sampling()))
    assert Counter(long_tokenizer.encoded)[RETHINK] == 2
    assert Counter(short_tokenizer.encoded)[THOUGHT] == 1


@pytest.mark.parametrize("same", [True, False])
def test_an_end_of_sequence_is_its_authors_alone(same: bool) -> None:
    long_tokenizer = FakeTokenizer(1)
    short_tokenizer = long_tokenizer if same else FakeTokenizer(2)
    episode = play([f"<think>a{EOS}", THOUGHT], [RETHINK, ANSWER], tokenizers=[long_tokenizer, short_tokenizer])
    turn = episode.turns[0]
    assert turn.token_ids[-1] == long_tokenizer.eos_token_id
    assert turn.text == THOUGHT
    assert short_tokenizer.decode(turn.ids_for("short"), False) == THOUGHT
    assert long_tokenizer.decode(turn.ids_for("long"), False) == f"<think>a{EOS}</think>"
    view = episode.view("long")
    assert view is not None
    assert view.mask[: len(turn.token_ids) + 1] == (*(1,) * len(turn.token_ids), 0)


# Cut turns


def test_a_cut_long_turn_is_closed_masked_without_format_reward_and_play_goes_on() -> None:
    limits = replace(ROOMY, max_turn_tokens={"long": 6, "short": 200})
    tokenizer = FakeTokenizer()
    episode = play(["<think>abcdefghij</think>", "<think>a</think>"], [RETHINK, ANSWER], limits, [tokenizer] * 2)
    cut = episode.turns[0]
    assert episode.outcome == "answered"
    assert (cut.finish_reason, cut.well_formed, cut.text) == ("length", False, "<think>abcde</think>")
    assert cut.closing_ids == tuple(tokenizer.encode("</think>", False))
    view = episode.view("long")
    assert view is not None
    assert view.mask[: len(cut.token_ids) + 1] == (1, 1, 1, 1, 1, 1, 0)
    weights = HybridReward(1.0, 1.0, Ramp(1.0, 1.0, 0))
    (long,) = group_rewards([episode], [Grade(True, "5")], "long", weights, 1.0, [0.0])
    (short,) = group_rewards([episode], [Grade(True, "5")], "short", weights, 1.0, [0.0])
    assert (long.correct, long.format) == (1.0, 0.0)
    assert (short.correct, short.format) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("long", "outcome"), [("<think>abcdefghij</think>", "token_limit"), (f"<think>a{EOS}", "malformed")]
)
def test_without_closing_a_long_turn_that_lacks_its_tag_ends_the_episode(long: str, outcome: str) -> None:
    limits = replace(ROOMY, max_turn_tokens={"long": 6, "short": 200}, close_cut_turns=False)
    episode = play([long], [ANSWER], limits)
    assert (roles(episode), episode.outcome) == (["long"], outcome)
    assert episode.turns[0].closing_ids == ()
    assert not episode.turns[0].well_formed


def test_a_turn_of_the_wrong_form_that_closes_goes_on() -> None:
    episode = play(["no tag a</think>", THOUGHT], ["nor here</rethink>", ANSWER])
    assert [turn.well_formed for turn in episode.turns] == [False, False, True, True]
    assert episode.outcome == "answered"


# Outcomes, and that nothing but a whole answer is rewarded

CUT_SHORT = replace(ROOMY, max_turn_tokens={"long": 200, "short": 12})
RIGHT = r"\boxed{5}"


@pytest.mark.parametrize(
    ("short", "limits", "outcome"),
    [
        (f"<answer>{RIGHT}</answer>", ROOMY, "answered"),
        (f"<answer>0 < x, x<5 and <b>: {RIGHT}</answer>", ROOMY, "answered"),
        (f"<answer>{RIGHT}</answer> and more", ROOMY, "answered"),
        (f"<answer>{RIGHT} and so on</answer>", CUT_SHORT, "token_limit"),
        (f"<answer>{RIGHT}{EOS}", ROOMY, "malformed"),
        (f"{RIGHT}</answer>", ROOMY, "malformed"),
        (f"<answer><think>{RIGHT}</think></answer>", ROOMY, "malformed"),
        (f"<answer><answer>{RIGHT}</answer>", ROOMY, "malformed"),
        (f"Well, <answer>{RIGHT}</answer>", ROOMY, "malformed"),
        ("<answer></answer>", ROOMY, "malformed"),
        ("<answer> \n</answer>", ROOMY, "malformed"),
        (EOS, ROOMY, "malformed"),
        (f"<answer>{RIGHT}</rethink>", ROOMY, "turn_limit"),
    ],
)
def test_only_a_whole_well_formed_answer_is_rewarded(short: str, limits: Limits, outcome: str) -> None:
    episode = play([f"<think>{RIGHT}</think>"], [short], limits)
    assert episode.outcome == outcome
    # The real grader finds the box in some of these texts; the outcome must decide.
    found = grade(episode.final_text, "5")
    (reward,) = group_rewards([episode], [found], "short", HybridReward(1.0, 0.0, Ramp(0.0, 0.0, 0)), 1.0, [0.0])
    assert reward.total == float(outcome == "answered")
    assert len(episode.turns) == (ROOMY.max_turns if outcome == "turn_limit" else 2)


# Caps


@pytest.mark.parametrize("turns", [1, 2, 3, 4])
def test_an_episode_never_has_more_turns_than_its_cap(turns: int) -> None:
    episode = play([THOUGHT], [RETHINK], replace(ROOMY, max_turns=turns))
    assert (len(episode.turns), episode.outcome) == (turns, "turn_limit")


def test_an_answer_in_the_last_turn_that_is_allowed_counts() -> None:
    assert play([THOUGHT], [RETHINK, ANSWER], replace(ROOMY, max_turns=4)).outcome == "answered"


async def budgets(limits: Limits, max_model_len: int = 4000) -> tuple[list[int], Episode]:
    """What each turn in order was allowed, where long takes 3 tokens a turn and short 3 too."""
    tokenizer = FakeTokenizer()
    long, short = FakeGenerator(tokenizer, [THOUGHT]), FakeGenerator(tokenizer, [RETHINK])
    controller = controller_of(long, short, limits, max_model_len)
    episode = await controller.play(problems(1)[0], 0, Sampling())
    requests = sorted((*long.requests, *short.requests), key=lambda request: len(request.prompt))
    assert episode.tokens <= limits.max_episode_tokens
    return [request.params.max_tokens for request in requests], episode


async def test_a_turn_is_capped_by_its_role() -> None:
    allowed, _ = await budgets(Limits(4, {"long": 7, "short": 5}, 1000))
    assert sorted(allowed) == [5, 5, 7, 7]


async def test_an_episode_is_capped_by_its_tokens() -> None:
    allowed, episode = await budgets(Limits(9, {"long": 7, "short": 7}, 12))
    assert sorted(allowed, reverse=True) == [7, 7, 6, 3]
    assert (episode.tokens, episode.outcome) == (12, "token_limit")


async def test_a_long_turn_cut_by_the_episodes_cap_leaves_no_room_for_an_answer() -> None:
    allowed, episode = await budgets(Limits(9, {"long": 7, "short": 7}, 8))
    assert allowed[-1] == 2
    assert (roles(episode), episode.outcome) == (["long", "short", "long"], "token_limit")
    assert episode.turns[-1].finish_reason == "length"


async def test_a_turn_is_capped_by_the_context_its_model_holds() -> None:
    tokenizer = FakeTokenizer()
    prompts = controller_of(FakeGenerator(tokenizer, []), FakeGenerator(tokenizer, []))
    longest = max(len(prompts.prompt(role, "question 0?")) for role in ("long", "short"))
    _, episode = await budgets(ROOMY, max_model_len=longest + 7)
    assert episode.outcome == "token_limit"
    for role in ("long", "short"):
        view = episode.view(role)
        assert view is not None
        assert len(view.prompt_ids + view.response_ids) <= longest + 7


async def test_no_turn_is_asked_for_without_room_for_a_token() -> None:
    tokenizer = FakeTokenizer()
    long, short = FakeGenerator(tokenizer, [THOUGHT]), FakeGenerator(tokenizer, [ANSWER])
    episode = await controller_of(long, short, max_model_len=5).play(problems(1)[0], 0, Sampling())
    assert (episode.turns, episode.outcome, long.requests) == ((), "token_limit", [])


# Seeds and sessions


def test_seeds_differ_by_run_step_problem_sample_and_turn_and_fit_32_bits() -> None:
    seeds = [
        turn_seed(run, step, problem, sample, turn)
        for run in (0, 1)
        for step in (-1, 0, 1, 11)
        for problem in ("p", "1", "p/1", "1/p", "")
        for sample in range(6)
        for turn in range(6)
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < INT32 for seed in seeds)


def test_seeds_are_the_same_in_another_process() -> None:
    code = "from longshort.controller import turn_seed; print(turn_seed(3, 4, 'π/7', 1, 2))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(there.stdout) == turn_seed(3, 4, "π/7", 1, 2)


async def requests_of(sampling: Sampling) -> list[Request]:
    tokenizer = FakeTokenizer()
    long, short = FakeGenerator(tokenizer, [THOUGHT]), FakeGenerator(tokenizer, [RETHINK, ANSWER])
    async for _ in controller_of(long, short).play_all(problems(3), 4, sampling):
        pass
    assert len(long.requests) == len(short.requests) == 2 * 3 * 4
    return [*long.requests, *short.requests]


async def test_every_turn_of_a_step_has_a_seed_of_its_own_and_a_repeated_run_the_same() -> None:
    def seeds(requests: list[Request]) -> dict[tuple[str, tuple[int, ...]], int | None]:
        return {(request.session, request.prompt): request.params.seed for request in requests}

    first, again = await requests_of(Sampling(run=1, step=5)), await requests_of(Sampling(run=1, step=5))
    later, other = await requests_of(Sampling(run=1, step=6)), await requests_of(Sampling(run=2, step=5))
    assert seeds(first) == seeds(again)
    every = [request.params.seed for request in (*first, *later, *other)]
    assert len(set(every)) == len(every)


async def test_a_session_is_one_episode_in_all_its_turns() -> None:
    requests = await requests_of(Sampling(step=5))
    assert set(Counter(request.session for request in requests).values()) == {4}
    assert len({request.session for request in requests}) == 3 * 4
    # By its session an episode is also told from that of another step.
    later = await requests_of(Sampling(step=6))
    assert not {request.session for request in requests} & {request.session for request in later}


# No barriers


async def test_an_episode_whose_first_turn_hangs_holds_up_no_other() -> None:
    tokenizer, released = FakeTokenizer(), asyncio.Event()
    slow = "0/p1/2"

    async def gate(request: Request) -> None:
        await (released.wait() if request.session == slow else asyncio.sleep(0))

    long = FakeGenerator(tokenizer, [THOUGHT], gate)
    short = FakeGenerator(tokenizer, [RETHINK, RETHINK, ANSWER])
    finished: list[tuple[int, Episode]] = []
    async for index, episode in controller_of(long, short).play_all(problems(5), 4, Sampling()):
        finished.append((index, episode))
        if len(finished) == 19:
            # All others are through with all their turns, while this one waits for its first.
            assert sum(request.session == slow for request in (*long.requests, *short.requests)) == 1
            released.set()
    assert finished[-1][0] == 1 * 4 + 2
    assert {len(episode.turns) for _, episode in finished} == {6}


async def test_an_engine_whose_partner_hangs_still_serves_others() -> None:
    tokenizer, released = FakeTokenizer(), asyncio.Event()

    async def gate(request: Request) -> None:
        # Every second episode waits in its short turn, none in its long one.
        await (released.wait() if request.session.endswith(("1", "3")) else asyncio.sleep(0))

    long, short = FakeGenerator(tokenizer, [THOUGHT]), FakeGenerator(tokenizer, [RETHINK, ANSWER], gate)
    indices: list[int] = []
    async for index, _ in controller_of(long, short).play_all(problems(2), 4, Sampling()):
        indices.append(index)
        if len(indices) == 4:
            assert set(indices) == {0, 2, 4, 6}
            released.set()
    assert sorted(indices) == list(range(8))


async def test_all_first_turns_are_asked_for_at_once() -> None:
    tokenizer, released = FakeTokenizer(), asyncio.Event()
    long = FakeGenerator(tokenizer, [THOUGHT], lambda request: released.wait())
    playing = controller_of(long, FakeGenerator(tokenizer, [ANSWER])).play_all(problems(8), 4, Sampling())
    first = asyncio.ensure_future(anext(playing))
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(long.requests) == 32
    released.set()
    await first
    assert len([item async for item in playing]) == 31


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 999))
def test_indices_count_problem_by_problem_whoever_finishes_first(count: int, samples: int, seed: int) -> None:
    speeds = random.Random(seed)

    async def collect() -> dict[int, Episode]:
        async def gate(request: Request) -> None:
            for _ in range(speeds.randrange(5)):
                await asyncio.sleep(0)

        tokenizer = FakeTokenizer()
        long, short = FakeGenerator(tokenizer, [THOUGHT], gate), FakeGenerator(tokenizer, [ANSWER], gate)
        return {i: e async for i, e in controller_of(long, short).play_all(asked, samples, Sampling())}

    asked = problems(count)
    played = asyncio.run(collect())
    assert sorted(played) == list(range(count * samples))
    for index, episode in played.items():
        assert (episode.problem, episode.sample) == (asked[index // samples], index % samples)


async def test_what_is_expected_to_last_longest_is_served_first() -> None:
    tokenizer = FakeTokenizer()
    long, short = FakeGenerator(tokenizer, [THOUGHT]), FakeGenerator(tokenizer, [RETHINK, ANSWER])
    expected = {"p0": 3.9, "p1": 100.0}
    controller = controller_of(long, short)
    controller.expected_tokens = lambda problem: expected[problem.id]
    async for _ in controller.play_all(problems(2), 1, Sampling()):
        pass
    # Every turn here has 3 tokens but the last; lower numbers start first.
    assert [request.params.priority for request in long.requests] == [-3, -100, 0, -94]
    assert [request.params.priority for request in short.requests] == [0, -97, 0, -91]


async def test_no_problems_make_no_episodes() -> None:
    tokenizer = FakeTokenizer()
    controller = controller_of(FakeGenerator(tokenizer, []), FakeGenerator(tokenizer, []))
    assert [item async for item in controller.play_all([], 4, Sampling())] == []


# Failures


def others() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


async def test_when_one_engine_call_fails_its_error_comes_out_and_no_task_is_left() -> None:
    tokenizer = FakeTokenizer()

    async def gate(request: Request) -> None:
        # One hangs for ever, so that something is left to cancel.
        await (asyncio.Event().wait() if request.session == "0/p0/1" else asyncio.sleep(0))

    def script(request: Request) -> str | Exception:
        return RuntimeError("engine gone") if request.session in ("0/p2/0", "0/p2/1") else THOUGHT

    long, short = FakeGenerator(tokenizer, script, gate), FakeGenerator(tokenizer, [RETHINK, ANSWER])
    with pytest.raises(RuntimeError, match="engine gone"):
        async for _ in controller_of(long, short).play_all(problems(4), 2, Sampling()):
            pass
    assert not others()


async def test_a_caller_that_is_cancelled_takes_all_episodes_along() -> None:
    tokenizer = FakeTokenizer()
    ended: list[str] = []

    async def gate(request: Request) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(request.session)

    controller = controller_of(FakeGenerator(tokenizer, [THOUGHT], gate), FakeGenerator(tokenizer, [ANSWER]))

    async def collect() -> list[tuple[int, Episode]]:
        return [item async for item in controller.play_all(problems(3), 2, Sampling())]

    caller = asyncio.ensure_future(collect())
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert len(ended) == 6
    assert not others()


# Prompts


def test_the_samples_of_a_group_share_one_prompt() -> None:
    tokenizer = FakeTokenizer()
    controller = controller_of(FakeGenerator(tokenizer, []), FakeGenerator(tokenizer, []))
    tokenizer.encoded.clear()
    same = {controller.prompt("long", "2+2?") for _ in range(5)}
    assert len(same) == len(tokenizer.encoded) == 1
    assert controller.prompt("short", "2+2?") not in same


def test_the_playgrounds_tokenizer_keeps_to_the_interface() -> None:
    from longshort.playground.tokenizer import build_tokenizer

    tokenizer: Tokenizer = build_tokenizer()
    long = FakeGenerator(tokenizer, [f"<think>7+5=12\n{tokenizer.decode([tokenizer.eos_token_id or 0])}"])
    short = FakeGenerator(tokenizer, [r"<answer>\boxed{12}</answer>"])
    controller = controller_of(long, short)
    episode = asyncio.run(controller.play(Problem("p", "7+5", "12"), 0, Sampling()))
    assert texts(episode) == ["<think>7+5=12\n</think>", r"<answer>\boxed{12}</answer>"]
    assert (roles(episode), episode.outcome) == (["long", "short"], "answered")


def test_a_tag_that_ends_inside_the_last_token_closes_the_turn() -> None:
    tokenizer = FakeTokenizer(pieces=("<think>", "</think>.", "<answer>", "</answer>."))
    sampled = [completion_of(tokenizer.encode(f"{text}.", add_special_tokens=False)) for text in (THOUGHT, ANSWER)]
    episode = play([sampled[0]], [sampled[1]], tokenizers=[tokenizer] * 2)
    assert texts(episode) == [THOUGHT, ANSWER]
    assert [turn.token_ids for turn in episode.turns] == [completion.token_ids for completion in sampled]
    assert all(turn.well_formed and not turn.closing_ids for turn in episode.turns)
    assert episode.outcome == "answered"
