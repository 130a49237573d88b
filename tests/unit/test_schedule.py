"""Schedules of rounds: what a round may change, what is refused before anything loads, and those that are shipped.

Not proved here: that a schedule trains anything well (``docs/results.md``).
"""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from longshort.config import build_config, config_dir
from longshort.rounds.schedule import rounds_of, settle_steps
from longshort.validation import trained_policies

SCHEDULES = sorted(
    file.stem for file in config_dir().glob("*.yaml") if file.stem != "base" and "\nrounds:" in file.read_text()
)
TWO = ["+rounds.a={train: long}", "+rounds.b={train: both}"]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_shipped_schedule_has_rounds_whose_numbers_fit(name: str) -> None:
    config = build_config(name)
    rounds = rounds_of(config)
    assert len(rounds) >= 3
    limits = [each.team.max_episode_tokens for each in rounds.values()]
    assert limits == sorted(limits, reverse=True)
    assert trained_policies(config) == tuple(config.policies)
    for each in rounds.values():
        assert not each.rounds
        for role, policy in each.policies.items():
            assert each.data.max_prompt_length + each.team.max_episode_tokens <= policy.rollout.max_model_len
            episodes = policy.actor.ppo_mini_batch_size * policy.rollout.n
            assert episodes % (each.placement.n_gpus_per_node[role] * each.trainer.nnodes) == 0
            assert each.data.train_batch_size % policy.actor.ppo_mini_batch_size == 0


@pytest.mark.parametrize("name", ["evolution_qwen2.5_7b", "evolution_llama3.1_8b", "evolution_playground"])
def test_the_evolution_is_the_papers_order(name: str) -> None:
    trained = [each.train for each in rounds_of(build_config(name)).values()]
    assert trained == ["long", "long", "short", "long", "short", "long"]


def test_thinkprunes_limits_are_the_papers() -> None:
    rounds = rounds_of(build_config("thinkprune_r1_distill_qwen_1.5b"))
    assert [each.team.max_turn_tokens.solo for each in rounds.values()] == [4000, 3000, 2000]


def test_a_round_changes_what_it_names_and_nothing_else() -> None:
    changed = "{train: short, team: {max_turns: 4}, reward: {eta: 2}, policies: {short: {actor: {optim: {lr: 7}}}}}"
    config = build_config("local", [f"+rounds.a={changed}", "+rounds.b={}", "actor_rollout_ref.actor.optim.lr=3"])
    a, b = rounds_of(config).values()
    assert (a.train, a.team.max_turns, a.reward.eta) == ("short", 4, 2)
    assert (a.policies.short.actor.optim.lr, a.policies.long.actor.optim.lr) == (7, 3)
    assert (b.train, b.team.max_turns, b.reward.eta, b.policies.short.actor.optim.lr) == ("both", 6, 1.0, 3)
    assert OmegaConf.to_container(b.data) == OmegaConf.to_container(config.data)


def test_interpolations_follow_the_rounds_own_numbers() -> None:
    config = build_config(
        "evolution_qwen2.5_7b", ["+rounds.long-r2.trainer={total_training_steps: 9}", "trainer.total_training_steps=5"]
    )
    steps = {name: each.reward.mu.ramp_steps for name, each in rounds_of(config).items()}
    assert steps["long-r1"] == 5 and steps["long-r2"] == 9
    assert rounds_of(config)["long-r2"].policies.long.actor.optim.total_training_steps == 9


def test_epochs_become_steps_once_the_problems_are_counted() -> None:
    config = build_config("thinkprune_r1_distill_qwen_1.5b")
    settle_steps(config, 1280)
    for each in rounds_of(config).values():
        assert each.trainer.total_training_steps == 100
        assert each.policies.solo.actor.optim.total_training_steps == 100


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (
            ["+rounds.a={team: {max_episode_tokens: 300}}", "+rounds.b={team: {max_episode_tokens: 301}}"],
            r"rounds\.b\.team\.max_episode_tokens=301 is more than the 300 of round a",
        ),
        (["+rounds.a={team: {max_turn_tokens: {long: 999}}}"], r"rounds\.a\.team\.max_turn_tokens\.long=999 is more"),
        (["+rounds.a={train: judge}"], r"rounds\.a: train=judge"),
        (["+rounds.a={train: solo}"], r"rounds\.a: train=solo"),
        (["+rounds.a={seed: 3}"], r"rounds\.a\.seed is the same in all rounds"),
        (["+rounds.a={team: {protocol: solo}}"], r"rounds\.a\.team\.protocol is the same in all rounds"),
        (["+rounds.a={policies: {long: {rollout: {n: 4}}}}"], r"rounds\.a\.policies\.long\.rollout\.n is the same"),
        (["+rounds.a={reward: {etta: 3}}"], r"rounds\.a\.reward\.etta is the same in all rounds"),
        (["+rounds.a={reward: {mu: {begin: 3}}}"], r"rounds\.a: .*begin"),
        (["+rounds.a=3"], r"rounds\.a=3 is no mapping"),
        ([*TWO, "selection.rule=best"], r"selection\.rule=best"),
        ([*TWO, "selection.rule=shortest"], r"selection\.rule=shortest compares validated checkpoints"),
        ([*TWO, "carry=[weights]"], "carry=weights"),
        (
            [*TWO, "actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.actor.use_kl_loss=true"],
            r"lora_rank=8 with use_kl_loss .* round b too; set carry=\[reference\]",
        ),
        (["reward.length.name=brief"], "no length reward is named 'brief'"),
        (["+reward.length.scale=3"], "length reward kimi has no setting scale=3"),
        (["guard.window=0"], r"guard\.window=0"),
        (["+guard.widow=3"], r"guard: .*widow"),
    ],
)
def test_a_bad_schedule_is_named_before_anything_loads(
    overrides: list[str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With modules of one's own, unknown names may be theirs.
    monkeypatch.delenv("VERL_USE_EXTERNAL_MODULES", raising=False)
    with pytest.raises(ValueError, match=named):
        build_config("local", overrides)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["team.max_turn_tokens.solo=100"], r"team\.max_turn_tokens\.solo=100 is not team\.max_episode_tokens"),
        (["team.family=llama"], r"team\.family=llama"),
        (["train=long"], "train=long"),
        (["policies.long.model.path=/m"], r"policies\.long"),
    ],
)
def test_a_bad_team_of_one_is_named(overrides: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        build_config("thinkprune_playground", overrides)
