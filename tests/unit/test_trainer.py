"""One step of multi-turn GRPO: who is trained, on what, in which order, and what stops it.

Not proved here: that an update changes weights for the better, that engines sample from the weights they were given,
and that real policies keep to the contract of these fakes (the integration tests run real ones).
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Mapping
from math import exp, inf, nan
from statistics import fmean, stdev

import pytest
from fakes import ROOMY, FakeGenerator, FakeGrader, FakePolicy, FakeTokenizer, Request, controller_of, problems

from longshort.controller import Limits, Sampling
from longshort.correction import AS_COMPUTED_AGAIN, RolloutCorrection
from longshort.data import ProblemOrder
from longshort.episode import Episode, Problem, Turn, View
from longshort.grading import Grade
from longshort.lengths import ExpectedLengths
from longshort.metrics import episode_metrics, kl_metrics, score_metrics
from longshort.player import Player
from longshort.policy import TokenScores
from longshort.rewards import HybridReward, Ramp, Reward
from longshort.trainer import NonFiniteUpdateError, RewardFailureError, Trainer, TrainerSettings

WEIGHTS = HybridReward(eta=1.0, format_weight=1.0, mu=Ramp(0.5, 0.5, 0))
BATCH, SAMPLES = 3, 4
Script = Callable[[Request], str]


def sample_of(request: Request) -> int:
    return int(request.session.rsplit("/", 1)[1])


def thoughts(request: Request) -> str:
    """Longer with every sample, and malformed for the last one."""
    body = "a" * (1 + sample_of(request))
    return f"{body}</think>" if sample_of(request) == SAMPLES - 1 else f"<think>{body}</think>"


def answers(request: Request) -> str:
    """The second sample asks for more thinking once; even ones are right."""
    if sample_of(request) == 1 and request.turn == 0:
        return "<answer>again</rethink>"
    return rf"<answer>\boxed{{{5 if sample_of(request) % 2 == 0 else 4}}}</answer>"


def make_trainer(
    long: Script = thoughts,
    short: Script = answers,
    limits: Limits = ROOMY,
    grader: FakeGrader | None = None,
    frozen: tuple[str, ...] = (),
    count: int = 7,
    learn_together: bool = True,
    batch: int = BATCH,
    weights: HybridReward = WEIGHTS,
    correction: RolloutCorrection = AS_COMPUTED_AGAIN,
) -> tuple[Trainer, dict[str, FakePolicy]]:
    """A trainer of two fake policies that share a log."""
    tokenizer, log = FakeTokenizer(), []
    generators = {"long": FakeGenerator(tokenizer, long), "short": FakeGenerator(tokenizer, short)}
    policies = {r: FakePolicy(r, g, trainable=r not in frozen, log=log) for r, g in generators.items()}
    settings = TrainerSettings(
        batch, SAMPLES, weights, Sampling(run=3), learn_together=learn_together, rollout_correction=correction
    )
    controller = controller_of(*generators.values(), limits)
    order = ProblemOrder(problems(count), seed=0)
    return Trainer(settings, policies, Player(controller, grader or FakeGrader()), order, ExpectedLengths()), policies


# Who learns, and from what


async def test_both_policies_are_updated_from_the_same_episodes_as_each_saw_them() -> None:
    trainer, policies = make_trainer()
    result = await trainer.step(1)
    episodes = result.graded.episodes
    assert len(episodes) == BATCH * SAMPLES
    for role, policy in policies.items():
        (samples,) = policy.updates
        assert [sample.view for sample in samples] == [episode.view(role) for episode in episodes]
        assert policy.syncs == 1


async def test_advantages_are_the_group_statistics_of_the_policys_own_rewards() -> None:
    trainer, policies = make_trainer()
    result = await trainer.step(1)
    for role, policy in policies.items():
        totals = [reward.total for reward in result.rewards[role]]
        expected = []
        for start in range(0, len(totals), SAMPLES):
            group = totals[start : start + SAMPLES]
            expected += [(total - fmean(group)) / (stdev(group) + 1e-6) for total in group]
        assert [sample.advantage for sample in policy.updates[0]] == pytest.approx(expected, abs=1e-6)
    # The last sample's thought is malformed, which is the long policy's loss alone.
    assert result.rewards["long"][SAMPLES - 1].format == 0.0
    assert result.rewards["short"][SAMPLES - 1].format == 1.0


async def test_other_problems_outcomes_and_lengths_change_no_advantage() -> None:
    def elsewhere(request: Request) -> str:
        return thoughts(request) if "/p0/" in request.session else "<think>" + "b" * 50 + "</think>"

    def wrong_elsewhere(request: Request) -> str:
        return answers(request) if "/p0/" in request.session else r"<answer>\boxed{0}</answer>"

    found = []
    for long, short in ((thoughts, answers), (elsewhere, wrong_elsewhere)):
        trainer, policies = make_trainer(long, short, count=3)
        result = await trainer.step(1)
        places = [i for i, episode in enumerate(result.graded.episodes) if episode.problem.id == "p0"]
        assert len(places) == SAMPLES
        found.append([policies["long"].updates[0][i].advantage for i in places])
    assert found[0] == pytest.approx(found[1], abs=1e-9)
    assert any(found[0])


async def test_the_loss_gets_the_trainers_log_probs_as_old_ones_and_the_references() -> None:
    trainer, policies = make_trainer()
    policies["long"].drift, policies["long"].reference = -0.25, 0.125
    await trainer.step(1)
    for sample in policies["long"].updates[0]:
        assert sample.old_log_probs == pytest.approx([value - 0.25 for value in sample.view.log_probs])
        assert sample.ref_log_probs == pytest.approx([value - 0.125 for value in sample.view.log_probs])
    assert all(sample.ref_log_probs is None for sample in policies["short"].updates[0])


async def test_in_bypass_mode_the_loss_gets_the_engines_log_probs_and_nothing_is_scored() -> None:
    trainer, policies = make_trainer(correction=RolloutCorrection(bypass_mode=True))
    policies["long"].drift, policies["long"].reference = -0.25, 0.125
    result = await trainer.step(1)
    for policy in policies.values():
        assert ("long", "score") not in policy.log
        assert all(sample.old_log_probs == sample.view.log_probs for sample in policy.updates[0])
    assert "long/kl" in result.metrics
    assert not any("log_prob_gap" in name for name in result.metrics)


async def test_corrections_reach_the_loss_and_the_metrics() -> None:
    trainer, policies = make_trainer(correction=RolloutCorrection(rollout_is="token", rollout_is_threshold=4.0))
    policies["long"].drift = 0.5
    result = await trainer.step(1)
    for sample in policies["long"].updates[0]:
        expected = [exp(0.5) if sampled else 0.0 for sampled in sample.view.mask]
        assert sample.rollout_is_weights == pytest.approx(expected)
    assert result.metrics["long/rollout_corr/rollout_is_mean"] == pytest.approx(exp(0.5))
    assert result.metrics["long/log_prob_gap"] == pytest.approx(0.5)


@pytest.mark.parametrize(("trained", "frozen"), [("long", "short"), ("short", "long")])
async def test_a_frozen_policy_plays_and_is_never_scored_updated_or_synced(trained: str, frozen: str) -> None:
    trainer, policies = make_trainer(frozen=(frozen,))
    result = await trainer.step(1)
    assert policies[frozen].generator.requests
    assert {call for name, call in policies[frozen].log if name == frozen} == {"sleep", "wake"}
    assert (len(policies[trained].updates), policies[trained].syncs) == (1, 1)
    assert set(result.rewards) == {trained}
    assert not any(name.startswith(f"{frozen}/reward") for name in result.metrics)


async def test_a_role_that_never_spoke_is_not_trained_but_gets_its_weights() -> None:
    trainer, policies = make_trainer(lambda request: "a" * 99, limits=Limits(9, {"long": 9, "short": 9}, 99, False))
    result = await trainer.step(1)
    assert {episode.outcome for episode in result.graded.episodes} == {"token_limit"}
    assert policies["short"].updates == []
    assert ("short", "score") not in policies["short"].log
    assert policies["short"].syncs == 1
    assert len(policies["long"].updates) == 1
    assert result.metrics["short/trained_episodes"] == 0
    assert result.metrics["long/trained_episodes"] == BATCH * SAMPLES


async def test_an_episode_in_which_a_role_never_spoke_counts_in_its_group_but_has_no_row() -> None:
    def silent_third(request: Request) -> str:
        return "a" * 99 if sample_of(request) == 2 else thoughts(request)

    trainer, policies = make_trainer(silent_third, limits=Limits(9, {"long": 20, "short": 40}, 200, False))
    result = await trainer.step(1)
    samples = policies["short"].updates[0]
    assert len(samples) == BATCH * (SAMPLES - 1)
    totals = [reward.total for reward in result.rewards["short"][:SAMPLES]]
    expected = [(total - fmean(totals)) / (stdev(totals) + 1e-6) for total in totals]
    assert [sample.advantage for sample in samples[:3]] == pytest.approx([expected[i] for i in (0, 1, 3)], abs=1e-6)
    assert len(policies["long"].updates[0]) == BATCH * SAMPLES


# Order of things


def calls(policies: Mapping[str, FakePolicy]) -> list[tuple[str, str]]:
    return next(iter(policies.values())).log


async def test_engines_sleep_before_anyone_learns_and_wake_when_all_have() -> None:
    for learn_together in (True, False):
        trainer, policies = make_trainer(learn_together=learn_together)
        await trainer.step(1)
        kinds = [call for _, call in calls(policies)]
        assert kinds[:2] == ["sleep", "sleep"]
        assert kinds[-2:] == ["wake", "wake"]
        assert kinds.index("sync") > max(i for i, call in enumerate(kinds) if call == "update")


async def test_policies_on_devices_of_their_own_learn_beside_each_other() -> None:
    trainer, policies = make_trainer()
    met = {"long": asyncio.Event(), "short": asyncio.Event()}
    for mine, other in (("long", "short"), ("short", "long")):

        async def meet(mine: str = mine, other: str = other) -> None:
            met[mine].set()
            await met[other].wait()

        policies[mine].hold = meet
    await asyncio.wait_for(trainer.step(1), 10)
    assert all(len(policy.updates) == 1 for policy in policies.values())


async def test_policies_that_share_devices_learn_one_after_another() -> None:
    trainer, policies = make_trainer(learn_together=False)
    await trainer.step(1)
    learning = [name for name, call in calls(policies) if call in ("score", "update")]
    assert learning == ["long", "long", "short", "short"]


async def test_steps_take_new_problems_with_new_seeds() -> None:
    trainer, policies = make_trainer()
    first, second = await trainer.step(1), await trainer.step(2)
    taken = [{episode.problem.id for episode in result.graded.episodes} for result in (first, second)]
    assert not taken[0] & taken[1]
    requests = [request for policy in policies.values() for request in policy.generator.requests]
    assert len({request.params.seed for request in requests}) == len(requests)
    assert {request.session.split("/")[0] for request in requests} == {"1", "2"}
    assert policies["long"].syncs == 2


async def test_a_step_learns_how_long_the_conversations_about_its_problems_are() -> None:
    trainer, _ = make_trainer()
    result = await trainer.step(1)
    first = result.graded.episodes[:SAMPLES]
    assert trainer.lengths(first[0].problem) == fmean(episode.tokens for episode in first)
    assert trainer.lengths(Problem("new", "q", "a")) == fmean(episode.tokens for episode in result.graded.episodes)


async def test_episodes_come_problem_by_problem_whoever_finishes_first() -> None:
    trainer, _ = make_trainer()
    result = await trainer.step(1)
    ids = [episode.problem.id for episode in result.graded.episodes]
    assert ids == [problem for problem in ids[::SAMPLES] for _ in range(SAMPLES)]
    assert [episode.sample for episode in result.graded.episodes] == list(range(SAMPLES)) * BATCH


async def test_progress_counts_to_the_number_of_episodes() -> None:
    trainer, _ = make_trainer()
    seen: list[tuple[int, int]] = []
    await trainer.step(1, lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, BATCH * SAMPLES) for i in range(BATCH * SAMPLES)]


# Grading


async def test_only_answered_episodes_are_graded() -> None:
    def half_open(request: Request) -> str:
        return r"\boxed{5}</answer>" if sample_of(request) == 0 else answers(request)

    grader = FakeGrader()
    trainer, _ = make_trainer(short=half_open, grader=grader)
    result = await trainer.step(1)
    assert len(grader.graded) == BATCH * (SAMPLES - 1)
    assert [grade.correct for grade in result.graded.grades[:SAMPLES]] == [False, False, True, False]
    assert result.graded.correct[:SAMPLES] == [False, False, True, False]


async def test_an_episode_is_graded_while_others_still_play() -> None:
    released, grader = asyncio.Event(), FakeGrader()
    trainer, policies = make_trainer(grader=grader)

    async def gate(request: Request) -> None:
        await (released.wait() if request.session.endswith("/0") else asyncio.sleep(0))

    policies["long"].generator.gate = gate
    stepping = asyncio.ensure_future(trainer.step(1))
    for _ in range(200):
        await asyncio.sleep(0)
    assert len(grader.graded) == BATCH * (SAMPLES - 1)
    released.set()
    await stepping


def failing(count: int, error: str) -> FakeGrader:
    """The first ``count`` grades fail."""
    left = iter(range(count))

    def rule(response: str, answer: str) -> Grade:
        return Grade(True, "5") if next(left, None) is None else Grade(False, "5", error)

    return FakeGrader(rule)


async def test_grades_that_fail_score_zero_and_up_to_one_in_twenty_is_borne() -> None:
    trainer, _ = make_trainer(grader=failing(1, "timeout"), batch=5)
    result = await trainer.step(1)
    assert len(result.graded.episodes) == 20
    (place,) = [i for i, episode in enumerate(result.graded.episodes) if episode.error is not None]
    assert result.graded.episodes[place].error == "grade: timeout"
    assert all(rewards[place] == Reward(0.0, 0.0, 0.0, 0.0) for rewards in result.rewards.values())
    assert result.metrics["failed_episodes"] == 1
    assert result.metrics["long/engine_restarts"] == result.metrics["short/engine_restarts"] == 0.0


@pytest.mark.parametrize("error", ["timeout", "crash", "gold"])
async def test_more_failing_grades_than_that_stop_the_run_before_any_update(error: str) -> None:
    trainer, policies = make_trainer(grader=failing(2, error), batch=5)
    with pytest.raises(RewardFailureError, match=rf"2 of 20 .* reward\.max_error_fraction=0\.05 .* grade: {error}"):
        await trainer.step(1)
    assert calls(policies) == []


async def test_an_engine_that_fails_stops_the_run_before_any_update() -> None:
    trainer, policies = make_trainer()

    def script(request: Request) -> str | Exception:
        return RuntimeError("engine gone") if request.session.endswith("/2") else answers(request)

    policies["short"].generator.script = script
    with pytest.raises(RuntimeError, match="engine gone"):
        await trainer.step(1)
    assert calls(policies) == []


# Updates that are not finite


@pytest.mark.parametrize("value", [nan, inf, -inf])
@pytest.mark.parametrize("learn_together", [True, False])
async def test_a_non_finite_update_stops_the_run_before_any_weight_reaches_an_engine(
    value: float, learn_together: bool
) -> None:
    trainer, policies = make_trainer(learn_together=learn_together)
    policies["short"].metrics = {"actor/pg_loss": 0.1, "actor/grad_norm": value}
    with pytest.raises(NonFiniteUpdateError, match=r"'short' is not finite \(actor/grad_norm=") as caught:
        await trainer.step(1)
    assert caught.value.policy == "short"
    assert list(caught.value.samples) == policies["short"].updates[0]
    assert all(policy.syncs == 0 for policy in policies.values())


def test_the_error_of_an_update_crosses_processes() -> None:
    error = NonFiniteUpdateError("long", {"loss": nan}, [])
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


# Metrics


async def test_the_metrics_of_a_step_are_what_was_played_and_earned() -> None:
    trainer, _ = make_trainer(batch=1)
    result = await trainer.step(1)
    metrics = result.metrics
    # Thoughts of 3, 4, 5 and 5 tokens, sample 1 twice; answers of 11, once after a rethink of 7.
    tokens = [3 + 11, 4 + 7 + 4 + 11, 5 + 11, 5 + 11]
    assert [episode.tokens for episode in result.graded.episodes] == tokens
    assert metrics["tokens_per_episode"] == fmean(tokens)
    assert metrics["turns_per_episode"] == (2 + 4 + 2 + 2) / 4
    assert (metrics["accuracy"], metrics["outcome/answered"], metrics["outcome/turn_limit"]) == (0.5, 1.0, 0.0)
    assert (metrics["long/turns"], metrics["long/well_formed_turns"]) == (5 / 4, 4 / 5)
    assert (metrics["long/reward/correct"], metrics["long/reward/format"]) == (0.5, 0.75)
    assert metrics["short/reward/format"] == 1.0
    totals = [reward.total for rewards in result.rewards.values() for reward in rewards]
    assert metrics["reward/mean"] == pytest.approx(fmean(totals))
    assert metrics["reward/mu"] == 0.5
    assert metrics["long/actor/pg_loss"] == 0.5


async def test_the_ramp_counts_steps() -> None:
    trainer, _ = make_trainer(weights=HybridReward(1.0, 1.0, Ramp(0.0, 1.0, 2)))
    assert [(await trainer.step(step)).metrics["reward/mu"] for step in (1, 2, 3, 4)] == [0.0, 0.5, 1.0, 1.0]
    assert (await trainer.step(5, mu_scale=0.25)).metrics["reward/mu"] == 0.25


def test_score_metrics_count_sampled_tokens_only() -> None:
    views = [View((1,), (2, 3, 4), (1, 0, 1), (-1.0, 0.0, -2.0))]
    scores = TokenScores(((-1.5, -99.0, -2.25),), ((0.5, 99.0, 1.5),))
    metrics = score_metrics("long", views, scores)
    assert metrics["long/log_prob_gap"] == pytest.approx((0.5 + 0.25) / 2)
    assert metrics["long/log_prob_gap_max"] == 0.5
    assert metrics["long/entropy"] == 1.0
    metrics = kl_metrics("long", views, scores.log_probs, TokenScores(((-1.5, 99.0, -1.25),)))
    assert metrics["long/kl"] == pytest.approx((0.0 + exp(1.0) - 1.0 - 1.0) / 2)


def test_caps_and_cached_prompts_are_shares_of_a_roles_own_turns() -> None:
    cut = Turn("long", (1, 2), "", (0.0, 0.0), "length", False, cached_tokens=2, prompt_tokens=8)
    whole = Turn("long", (1,), "", (0.0,), "stop", cached_tokens=6, prompt_tokens=8)
    unknown = Turn("long", (1,), "", (0.0,), "stop", prompt_tokens=100)
    prompts = {"long": (1,), "short": (1,)}
    episode = Episode(Problem("p", "q", "a"), prompts, (cut, whole, unknown, unknown), "turn_limit")
    metrics = episode_metrics([episode], [False])
    assert metrics["long/cut_turns"] == 0.25
    assert metrics["long/cached_prompt_share"] == 0.5
    assert (metrics["short/turns"], metrics["short/tokens"], metrics["short/cut_turns"]) == (0.0, 0.0, 0.0)
