"""What the benchmarks of the stack compute from what they measured; the measuring itself is not proved here."""

from __future__ import annotations

import random
from dataclasses import replace

import psutil
import pytest
from serving_fakes import SlowGenerator, served

from benchmarks import serving
from benchmarks.prefix_cache import LaterTurn, ideal_tokens, later_turns, row_of
from benchmarks.startup import stages_of
from benchmarks.update_path import SAMPLES, falls_short, graded, random_episodes, written_episodes
from longshort.episode import Episode, Problem, Turn


def turn(role: str, ids: tuple[int, ...], prompt_tokens: int, cached: int, closing: tuple[int, ...] = ()) -> Turn:
    return Turn(
        role, ids, "", (0.0,) * len(ids), "stop", closing_ids=closing, cached_tokens=cached, prompt_tokens=prompt_tokens
    )


# long's second prompt: 1 2 | 10 11 12 | 20 21, of which 1 2 10 11 were read when its first turn ended.
PLAYED = Episode(
    Problem("p", "", ""),
    {"long": (1, 2), "short": (3,)},
    (
        turn("long", (10, 11, 12), 2, 0),
        turn("short", (20, 21), 4, 0),
        turn("long", (13, 14), 7, 4),
        turn("short", (22,), 8, 0),
    ),
    "answered",
)


@pytest.mark.parametrize(
    ("computed", "prompt", "block", "expected"),
    [
        ((1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 6), 1, 5),
        ((1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 6), 2, 4),
        ((1, 2, 3, 4, 5), (1, 2, 9, 4, 5, 6), 1, 2),
        # The last token of a prompt must be computed, whatever the cache holds.
        ((1, 2, 3, 4), (1, 2, 3, 4), 2, 2),
        ((1, 2, 3), (1, 2, 3, 4), 16, 0),
    ],
)
def test_the_ideal_is_whole_blocks_of_the_common_prefix(computed, prompt, block, expected) -> None:
    assert ideal_tokens(computed, prompt, block) == expected


def test_the_last_sampled_token_was_never_read_and_a_first_turn_does_not_count() -> None:
    assert list(later_turns(PLAYED, "long", 2)) == [LaterTurn(7, 4, 4)]
    # 3 10 11 12 20, of which the cache of two-token blocks holds four.
    assert list(later_turns(PLAYED, "short", 2)) == [LaterTurn(8, 4, 0)]


def test_a_hit_beyond_the_ideal_makes_up_for_no_miss() -> None:
    lucky = replace(PLAYED, turns=(*PLAYED.turns[:2], replace(PLAYED.turns[2], cached_tokens=6), PLAYED.turns[3]))
    missed = replace(PLAYED, turns=(*PLAYED.turns[:2], replace(PLAYED.turns[2], cached_tokens=2), PLAYED.turns[3]))
    row = row_of("local", "long", [lucky, missed], 2)
    assert (row["later_turns"], row["cached_to_ideal"]) == (2, 0.75)


def test_stages_last_from_their_line_to_the_next_and_the_first_step_ends_them() -> None:
    lines = [
        (2.0, "loading data and tokenizers"),
        (5.5, "loading data and tokenizers: done after 3s"),
        (5.5, "starting Ray"),
        (9.0, "starting rollout engines"),
        (31.0, "step 1/1, accuracy 50.0%"),
    ]
    assert stages_of(lines, end=30.0, step_s=4.0) == {
        "imports and configuration": 2.0,
        "loading data and tokenizers": 3.5,
        "starting Ray": 3.5,
        "starting rollout engines": 17.0,
        "first step": 4.0,
    }


@pytest.mark.parametrize(
    "episodes", [random_episodes(2 * SAMPLES, 4, 10), written_episodes(2, lambda text: tuple(map(ord, text)))]
)
def test_made_up_episodes_are_groups_that_every_role_can_learn_from(episodes: list[Episode]) -> None:
    batch, rewards = graded(episodes)
    assert len(batch.episodes) == len(batch.grades) == len(rewards) == 2 * SAMPLES
    for start in (0, SAMPLES):
        assert len({episode.problem.id for episode in episodes[start : start + SAMPLES]}) == 1
    assert episodes[0].problem.id != episodes[SAMPLES].problem.id
    for role in ("long", "short"):
        assert all(episode.view(role) is not None for episode in episodes)


def test_only_the_row_with_a_worker_has_a_target() -> None:
    assert not falls_short({"driver_s": 100.0})
    assert not falls_short({"ours_to_verl": 1.05})
    assert falls_short({"ours_to_verl": 1.06}) == ["ours_to_verl"]


SERVED = {
    "cluster": False,
    "served_to_direct": 0.9,
    "broken": [],
    "server_growth": 0.0,
    "first_token_ms_more": 3.0,
    "budgets": {"over": 0, "tags": 0, "answered": 0.995},
    "hostile": {"well": True, "statuses": {"200": 5, "400": 90, "closed": 5}},
}


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({}, []),
        ({"served_to_direct": 0.84}, ["served_to_direct"]),
        ({"broken": ["stream 3 has no end"]}, ["broken"]),
        ({"budgets": {"over": 1, "tags": 0, "answered": 1.0}}, ["budgets"]),
        ({"budgets": {"over": 0, "tags": 0, "answered": 0.98}}, ["budgets"]),
        ({"hostile": {"well": True, "statuses": {"500": 1}}}, ["hostile"]),
        ({"hostile": {"well": False, "statuses": {}}}, ["hostile"]),
        ({"cluster": True, "served_to_direct": 0.2, "first_token_ms_more": 30.0}, []),
    ],
)
def test_a_target_of_serving_that_is_missed_is_named(change: dict, names: list[str]) -> None:
    assert serving.missed({**SERVED, **change}) == names


def test_hostile_requests_are_of_many_kinds_and_the_same_every_time() -> None:
    drawn = [serving.hostile_request(random.Random(number)) for number in range(50)]
    assert drawn == [serving.hostile_request(random.Random(number)) for number in range(50)]
    assert {half_closed for _, half_closed in drawn} == {True, False}
    assert any(b"</think>" in sent for sent, _ in drawn)


async def test_the_client_of_the_serving_benchmark_reads_what_a_server_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "STREAMS", 2)
    problems = [Problem(str(number), f"{number}+1?", "") for number in range(4)]
    async with served(name=serving.PLAYGROUND) as at:
        client = serving.Client(at.address, at.session)
        client.tokenizers = {role: FakeDecoder(g) for role, g in at.generators.items()}
        events = await client.stream("1+1?", 0, True)
        assert client.mixed_up(events) == ""
        assert "instead of" in client.mixed_up([*events[:-4], *events[-3:]])
        load = await client.served(problems, 1.0, psutil.Process())
        assert (load.broken, load.conversations > 0, load.tokens % 29) == ([], True, 0)
        assert await client.first_token_ms(problems) > 0
        kept = await client.budgets(problems, 20)
        assert (kept["over"], kept["tags"], kept["answered"]) == (0, 0, 1.0)
        survived = await client.hostile(60)
        assert survived["well"]
        assert not any(status.startswith("5") for status in survived["statuses"])


class FakeDecoder:
    """The tokenizer of a scripted generator, as a real one is called."""

    def __init__(self, generator: SlowGenerator) -> None:
        self._tokenizer = generator._tokenizer

    def decode(self, ids: list[int]) -> str:
        assert self._tokenizer is not None
        return self._tokenizer.decode(ids, skip_special_tokens=False)
