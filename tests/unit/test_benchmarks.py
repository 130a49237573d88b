"""The benchmarks measure what they say. Not proven here: their figures."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from benchmarks import grading, packing, pipelining, scripted_episodes, virtual_time
from longshort.grading import grade

SCRIPTS = scripted_episodes.draw_scripts(40, 1)


# Pipelining


def play(in_lockstep: bool) -> dict[str, tuple[int, ...]]:
    """Tokens of every turn by problem, played by the simulated engines."""

    async def collect() -> dict[str, tuple[int, ...]]:
        engines = {role: scripted_episodes.SimulatedEngine() for role in scripted_episodes.ROLES}
        episodes = scripted_episodes.play(SCRIPTS, engines, {}, in_lockstep)
        return {e.problem.id: tuple(len(turn.token_ids) for turn in e.turns) async for e in episodes}

    return virtual_time.run(collect())[0]


def test_lockstep_plays_the_same_turns() -> None:
    assert play(in_lockstep=True) == play(in_lockstep=False)


def test_lockstep_starts_no_turn_before_all_have_ended_the_one_before() -> None:
    log: list[tuple[int, str]] = []

    async def walk(barrier: scripted_episodes.Lockstep, turns: int) -> None:
        for turn in range(turns):
            await barrier.begin(turn)
            log.append((turn, "begin"))
            for _ in range(random.Random(turns).randrange(4)):
                await asyncio.sleep(0)
            log.append((turn, "end"))
            barrier.end(turn)

    async def walk_all() -> None:
        barrier = scripted_episodes.Lockstep(SCRIPTS)
        await asyncio.gather(*[walk(barrier, len(script)) for script in SCRIPTS])

    asyncio.run(walk_all())
    assert [turn for turn, _ in log] == sorted(turn for turn, _ in log)
    assert len(log) == 2 * sum(map(len, SCRIPTS))


def test_no_play_is_faster_than_the_bound() -> None:
    row = pipelining.simulate(64, 1)
    assert row["ours_to_bound"] >= 1
    assert row["fcfs_to_bound"] >= 1
    assert row["lockstep_to_ours"] > 1


# Grading


@pytest.mark.parametrize("shape", [grading.number, grading.expression])
def test_every_second_made_up_answer_is_right(shape: Callable[[random.Random], grading.Forms]) -> None:
    pairs = grading.made_up(shape, 12, 2, seed=0)
    assert [grade(*pair).correct for pair in pairs] == [i // 2 % 2 == i % 2 for i in range(24)]


def test_both_ways_of_grading_find_the_same() -> None:
    with grading.GradingPool(1, 30.0) as pool:
        row = grading.compare("as in MATH", "distinct", [grading.made_up(grading.as_in_math, 12, 1, seed=0)], pool)
    assert row["same_verdicts"] == 1


# Packing


@pytest.fixture(scope="module")
def samples() -> list[packing.Sample]:
    return packing.samples_of(packing.episodes_of(30), "short")


@pytest.mark.parametrize("ranks", [1, 2])
def test_packed_rows_are_counted_once_with_their_fillers(samples: list[packing.Sample], ranks: int) -> None:
    row = packing.measure(
        samples, 32, ranks, 2**15, packing.build_config(packing.RECIPE).policies.long.actor.fsdp_config
    )
    tokens = [len(sample.view.prompt_ids) + len(sample.view.response_ids) for sample in samples]
    # A filler has two tokens.
    assert row["packed"] == pytest.approx(sum(tokens) / (sum(tokens) + 2 * 2), abs=1e-4)
    assert row["padded_mini_batch"] == pytest.approx(sum(tokens) / (32 * max(tokens)), abs=1e-4)
    assert row["trained_tokens"] == sum(tokens)
    assert row["padded_mini_batch"] <= row["padded"] < row["packed"]


def test_ranks_have_equally_many_micro_batches_within_the_limit(samples: list[packing.Sample]) -> None:
    limit = 2**15
    batch = packing.sample_batch(samples, max_token_len_per_gpu=limit, use_dynamic_bsz=True)
    (parts,) = packing.mini_batches(batch, 3, 30)
    made = packing.micro_batches(parts)
    assert len({len(each) for each in made}) == 1
    assert sum(len(micro) for each in made for micro in each) == 30
    assert all(sum(packing.rows_of(micro)) <= limit for each in made for micro in each)
