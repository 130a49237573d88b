"""Rounds of a run with fake policies: who learns when and from what, what is selected, and exact resuming.

Not proved here: that real workers give back the weights and optimisers they saved, and that engines sample alike after
a restart (``tests/integration/test_rounds.py``).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fakes import EOS, FakeGenerator, FakeGrader, FakePolicy, FakeTokenizer, Request, problems
from omegaconf import DictConfig

from longshort import checkpoints
from longshort.checkpoints import DamagedCheckpointError
from longshort.config import build_config
from longshort.controller import Limits, Member, Sampling, SynergyController
from longshort.data import ProblemOrder
from longshort.display import Display
from longshort.grading import Grade
from longshort.lengths import ExpectedLengths
from longshort.player import Player
from longshort.policy import Sample
from longshort.protocols import protocol_of
from longshort.rewards import HybridReward, Ramp
from longshort.rounds.collapse import CollapseSettings, CollapseWatch
from longshort.rounds.record import Record
from longshort.rounds.round import Round
from longshort.rounds.schedule import rounds_of
from longshort.run import Run
from longshort.stopping import StoppedEarlyError
from longshort.trainer import Trainer, TrainerSettings
from longshort.validation import trained_policies
from tests.killed_runs import steps_of


class Killed(BaseException):
    """Ends a run as a signal would."""


@dataclass
class Learner(FakePolicy):
    """A policy of one number, which every update moves by what it is given; its momentum is the optimiser's state."""

    value: float = 0.0
    momentum: float = 0.0
    rate: float = 0.0
    anchor: float = 0.0
    tick: Callable[[], None] = lambda: None

    async def update(self, samples: Sequence[Sample]) -> Mapping[str, float]:
        self.tick()
        await super().update(samples)
        pull = sum(sample.advantage * len(sample.view.response_ids) for sample in samples)
        self.momentum = 0.5 * self.momentum + pull
        self.value += self.rate * self.momentum + 0.01 * (self.anchor - self.value)
        return {"actor/value": self.value}

    async def begin_round(self, learns: bool, optim: Mapping[str, Any], carry: Collection[str]) -> None:
        await super().begin_round(learns, optim, carry)
        if learns and "optimizer" not in carry:
            self.momentum, self.rate = 0.0, optim["lr"]
        if learns and "reference" not in carry:
            self.anchor = self.value

    async def save(self, folder: Path) -> None:
        self.tick()
        folder.mkdir(parents=True)
        state = {"value": self.value, "momentum": self.momentum, "rate": self.rate}
        (folder / "weights").write_text(json.dumps(state))

    async def load(self, folder: Path) -> None:
        state = json.loads((folder / "weights").read_text())
        self.value, self.momentum, self.rate = state["value"], state["momentum"], state["rate"]

    async def load_weights(self, folder: Path) -> None:
        self.value = json.loads((folder / "weights").read_text())["value"]


PAIR = [
    "trainer.total_training_steps=3",
    "trainer.save_freq=1",
    "+rounds.a={train: long}",
    "+rounds.b={train: both, trainer: {total_training_steps: 2}}",
    "+rounds.c={train: short, actor_rollout_ref: {actor: {optim: {lr: 0.5}}}}",
]
STOPPED = ["guard.action=stop", "guard.window=2", "guard.min_tokens=1000"]
SOLO = ["train=solo", "trainer.total_training_steps=4", "trainer.test_freq=2", "trainer.save_freq=2"]


@cache
def built(recipe: str, overrides: tuple[str, ...]) -> DictConfig:
    return build_config(recipe, [*overrides, "actor_rollout_ref.actor.optim.lr=0.1"])


def open_fake(folder: Path, recipe: str, overrides: Sequence[str], kill_at: int | None = None) -> Run:
    """A run as assembly makes one, of learners; ``kill_at`` counts requests, updates and saves."""
    config = built(recipe, tuple(overrides))
    left = kill_at

    def tick() -> None:
        nonlocal left
        if left is not None:
            left -= 1
            if left < 0:
                raise Killed

    async def gate(request: Request) -> None:
        tick()

    tokenizer = FakeTokenizer()
    policies: dict[str, Learner] = {}
    for role in map(str, config.policies):

        def write(request: Request, role: str = role) -> str:
            # As long as the seed and the writer's weight say.
            body = "a" * (1 + (request.params.seed or 0) % 7 + round(abs(policies[role].value)) % 5)
            right = 5 if (request.params.seed or 0) % 3 else 4
            return {
                "long": f"<think>{body}</think>",
                "short": rf"<answer>{body}\boxed{{{right}}}</answer>",
                "solo": rf"<think>{body}</think>\boxed{{{right}}}" + EOS,
            }[role]

        generator = FakeGenerator(tokenizer, write, gate=gate)
        policies[role] = Learner(role, generator, trainable=role in trained_policies(config), tick=tick)
    order, lengths = ProblemOrder(problems(9), seed=0), ExpectedLengths()

    def player(each: Any) -> Player:
        members = {role: Member(policy.generator, tokenizer, 4000) for role, policy in policies.items()}
        limits = Limits(each.team.max_turns, dict(each.team.max_turn_tokens), each.team.max_episode_tokens)
        return Player(SynergyController(protocol_of(each.team), members, limits, lengths), FakeGrader())

    rounds: list[Round] = []
    for name, each in rounds_of(config).items():
        first = rounds[-1].last if rounds else 0
        settings = TrainerSettings(
            2,
            4,
            HybridReward(1.0, 1.0, Ramp(1.0, 1.0, 0)),
            Sampling(),
            learners=trained_policies(each),
            first_step=first,
        )
        trainer = Trainer(settings, policies, player(each), order, lengths)
        guard = CollapseWatch(CollapseSettings(**each.guard))
        rounds.append(Round(name, each, trainer, tuple(problems(3)), first, guard))
    folder.mkdir(exist_ok=True)
    return Run(config, tuple(rounds), player(config), tuple(problems(2)), Display(), folder)


async def test_each_round_trains_whom_it_names_with_its_own_optimiser_and_goes_on_from_the_last(tmp_path: Path) -> None:
    run = open_fake(tmp_path, "local", PAIR)
    await run.fit()
    long, short = run.trainer.policies["long"], run.trainer.policies["short"]
    assert isinstance(long, Learner) and isinstance(short, Learner)
    assert (len(long.updates), len(short.updates)) == (3 + 2, 2 + 3)
    assert [call for _, call in long.log if call.startswith("begin")][:1] == ["begin learning"]
    assert short.rate == 0.5
    record = Record.load(tmp_path)
    assert [(each.name, each.last_step, each.selected) for each in record.rounds] == [
        ("a", 3, 3),
        ("b", 5, 5),
        ("c", 8, 8),
    ]
    assert [dict(each.weights) for each in record.rounds] == [
        {"long": 3, "short": None},
        {"long": 5, "short": 5},
        {"long": 5, "short": 8},
    ]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [(row["pair"], row["trained"]) for row in summary["rounds"]] == [
        ("Long-r1⊗Short-r0", "long"),
        ("Long-r2⊗Short-r1", "long+short"),
        ("Long-r2⊗Short-r2", "short"),
    ]


async def test_a_round_hands_on_the_checkpoint_that_its_rule_selects(tmp_path: Path) -> None:
    run = open_fake(tmp_path, "thinkprune_playground", [*SOLO, "selection.tolerance=0.9"])
    await run.fit()
    record = Record.load(tmp_path)
    for each in record.rounds:
        assert [candidate.step % 2 for candidate in each.candidates] == [0, 0]
        assert each.selected == min(each.candidates, key=lambda c: (c.length, -c.accuracy, -c.step)).step
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [row["limit"] for row in summary["rounds"]] == [r.config.team.max_episode_tokens for r in run.rounds]
    assert summary["final"]["length"] == summary["rounds"][-1]["length"]


async def test_a_round_without_a_good_checkpoint_goes_back_to_its_start(tmp_path: Path) -> None:
    run = open_fake(tmp_path, "thinkprune_playground", [*SOLO, "selection.tolerance=0"])
    for each in run.rounds:
        # Nobody answers right any more after the start.
        each.trainer.player.grader.rule = lambda response, answer: Grade(False, None)  # type: ignore[attr-defined]
    await run.fit()
    record = Record.load(tmp_path)
    assert [each.selected for each in record.rounds] == [None] * 3
    assert {step for each in record.rounds for step in each.weights.values()} == {0}
    policy = run.trainer.policies["solo"]
    assert isinstance(policy, Learner) and policy.value == 0.0
    assert all("the round's start is kept" in each.reason for each in record.rounds)


@pytest.mark.parametrize("carry", ["[]", "[optimizer, reference]"])
@pytest.mark.parametrize(("recipe", "overrides"), [("local", PAIR), ("thinkprune_playground", SOLO)])
async def test_a_run_killed_anywhere_goes_on_as_if_it_had_not_been(
    tmp_path: Path, recipe: str, overrides: list[str], carry: str
) -> None:
    overrides = [*overrides, f"carry={carry}"]
    await open_fake(tmp_path / "whole", recipe, overrides).fit()
    wanted = steps_of(tmp_path / "whole")
    assert len(wanted) == 8 if recipe == "local" else 12
    for kill_at in range(3, 330, 81):
        folder = tmp_path / f"killed-{kill_at}"
        killed = 0
        while True:
            try:
                await open_fake(folder, recipe, overrides, kill_at if killed < 2 else None).fit()
                break
            except (Killed, BaseExceptionGroup):
                killed += 1
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()
        assert steps_of(folder) == wanted
        assert Record.load(folder).rounds == Record.load(tmp_path / "whole").rounds


@pytest.mark.parametrize(
    ("recipe", "overrides"), [("local", [*PAIR, "trainer.save_freq=4"]), ("thinkprune_playground", SOLO)]
)
async def test_a_run_asked_to_stop_ends_after_its_step_and_goes_on_as_if_it_had_not_been(
    tmp_path: Path, recipe: str, overrides: list[str]
) -> None:
    await open_fake(tmp_path / "whole", recipe, overrides).fit()
    reached: list[int] = []
    for _ in range(20):
        run = open_fake(tmp_path / "stopped", recipe, overrides)
        taken = run.trainer.policies["long" if recipe == "local" else "solo"]
        assert isinstance(taken, Learner)
        taken.tick = run.stop.make
        try:
            await run.fit()
        except StoppedEarlyError as error:
            reached.append(int(str(error).split()[3]))
        else:
            break
    assert len(reached) > 1
    assert reached == sorted(set(reached)), "every start takes a step"
    assert steps_of(tmp_path / "stopped") == steps_of(tmp_path / "whole")


async def test_only_the_newest_checkpoints_stay_beside_those_that_rounds_need(tmp_path: Path) -> None:
    await open_fake(tmp_path, "local", [*PAIR, "trainer.max_actor_ckpt_to_keep=1"]).fit()
    assert sorted(path.name for path in tmp_path.glob("global_step_*")) == ["global_step_5", "global_step_8"]


async def test_as_many_checkpoints_stay_as_are_asked_for(tmp_path: Path) -> None:
    for steps, kept in ((2, [1, 2]), (3, [1, 2, 3]), (5, [3, 4, 5])):
        settings = [f"trainer.total_training_steps={steps}", "trainer.save_freq=1", "trainer.max_actor_ckpt_to_keep=3"]
        await open_fake(tmp_path / str(steps), "local", settings).fit()
        assert checkpoints.steps(tmp_path / str(steps)) == kept


async def test_a_guard_ends_a_round_early_and_the_next_begins(tmp_path: Path) -> None:
    await open_fake(tmp_path, "local", [*PAIR, *STOPPED]).fit()
    record = Record.load(tmp_path)
    assert [each.last_step for each in record.rounds] == [2, 5, 7]
    assert all(each.stopped and "guard.min_tokens=1000" in each.stopped for each in record.rounds)


@pytest.mark.parametrize(("save_freq", "saved"), [(4, [2]), (-1, [])])
async def test_the_end_of_a_run_that_its_guard_stops_is_saved_where_steps_are(
    tmp_path: Path, save_freq: int, saved: list[int]
) -> None:
    await open_fake(tmp_path, "local", [*STOPPED, f"trainer.save_freq={save_freq}"]).fit()
    assert [each.last_step for each in Record.load(tmp_path).rounds] == [2]
    assert checkpoints.steps(tmp_path) == saved


@pytest.mark.parametrize("overrides", [[*PAIR, *STOPPED], [*STOPPED, "trainer.save_freq=1"]])
async def test_a_run_killed_after_its_guard_stopped_a_round_takes_no_step_more_of_it(
    tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_fake(tmp_path / "whole", "local", overrides).fit()

    async def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Run, "_finish", killed)
        await open_fake(tmp_path / "killed", "local", overrides).fit()
    assert checkpoints.steps(tmp_path / "killed")[-1] == 2
    await open_fake(tmp_path / "killed", "local", overrides).fit()
    assert steps_of(tmp_path / "killed") == steps_of(tmp_path / "whole")
    assert Record.load(tmp_path / "killed").rounds == Record.load(tmp_path / "whole").rounds


async def test_the_guard_lowers_mu_within_its_round_and_a_resumed_run_knows(tmp_path: Path) -> None:
    settings = [*PAIR, "guard.action=lower_mu", "guard.window=1", "guard.min_tokens=1000", "guard.cooldown=0"]
    for stops_in_between in (True, False):
        run = open_fake(tmp_path, "local", settings)
        if stops_in_between:
            run.rounds[0].trainer.policies["long"].tick = run.stop.make  # type: ignore[attr-defined]
            with pytest.raises(StoppedEarlyError):
                await run.fit()
        else:
            await run.fit()
    steps = steps_of(tmp_path)
    assert [steps[step]["reward/mu"] for step in range(1, 9)] == [1, 0.5, 0.25, 1, 0.5, 1, 0.5, 0.25]


async def test_a_policy_that_rests_keeps_the_optimiser_that_it_goes_on_with_when_the_run_is_resumed(
    tmp_path: Path,
) -> None:
    rounds = ["+rounds.a={train: long}", "+rounds.b={train: short}", "+rounds.c={train: long, carry: [optimizer]}"]
    settings = ["trainer.total_training_steps=2", "trainer.save_freq=1", *rounds]
    await open_fake(tmp_path / "whole", "local", settings).fit()
    run = open_fake(tmp_path / "resumed", "local", settings)
    run.trainer.policies["short"].tick = run.stop.make  # type: ignore[attr-defined]
    with pytest.raises(StoppedEarlyError, match="after step 3"):
        await run.fit()
    await open_fake(tmp_path / "resumed", "local", settings).fit()
    assert steps_of(tmp_path / "resumed") == steps_of(tmp_path / "whole")


async def test_a_step_in_progress_is_shown_and_its_line_in_a_log_stays_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    run = open_fake(tmp_path, "local", ["trainer.total_training_steps=2"])
    run.display.stage("starting engines")
    monkeypatch.setattr(run.display, "advance", lambda done, total: told.append((done, total)))
    await run.fit()
    assert [done for done, total in told if total == 8] == [*range(1, 9), *range(1, 9)]
    lines = [line.split(",")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines[:5] == ["starting engines", "testing the start", "training", "step 1/2", "step 2/2"]
    assert lines[5] == "testing"


async def test_a_longer_last_round_is_gone_on_with(tmp_path: Path) -> None:
    await open_fake(tmp_path, "local", ["trainer.total_training_steps=2", "trainer.save_freq=1"]).fit()
    await open_fake(tmp_path, "local", ["trainer.total_training_steps=4", "trainer.save_freq=1"]).fit()
    assert sorted(steps_of(tmp_path)) == [1, 2, 3, 4]
    assert [each.last_step for each in Record.load(tmp_path).rounds] == [4]


async def test_a_recipe_with_fewer_rounds_than_are_over_is_refused(tmp_path: Path) -> None:
    await open_fake(tmp_path, "local", PAIR).fit()
    with pytest.raises(ValueError, match=r"3 rounds of .* are over, but the recipe has 1"):
        await open_fake(tmp_path, "local", ["trainer.total_training_steps=2", "trainer.save_freq=1"]).fit()


async def test_a_round_stopped_before_a_checkpoint_was_validated_keeps_its_start(tmp_path: Path) -> None:
    guarded = [*SOLO, "guard.action=stop", "guard.window=1", "guard.min_tokens=1000", "trainer.test_freq=4"]
    await open_fake(tmp_path, "thinkprune_playground", guarded).fit()
    record = Record.load(tmp_path)
    assert [(each.last_step, each.selected) for each in record.rounds] == [(1, None), (5, None), (9, None)]
    assert all("before a checkpoint was validated" in each.reason for each in record.rounds)


async def test_a_run_without_checkpoints_begins_anew_and_a_finished_one_does_nothing(tmp_path: Path) -> None:
    settings = ["trainer.total_training_steps=2"]
    for _ in range(2):
        run = open_fake(tmp_path / "unsaved", "local", settings)
        await run.fit()
        assert all(len(policy.updates) == 2 for policy in run.trainer.policies.values() if isinstance(policy, Learner))
    for updates in (2, 0):
        run = open_fake(tmp_path / "saved", "local", [*settings, "trainer.save_freq=1"])
        await run.fit()
        assert all(
            len(policy.updates) == updates for policy in run.trainer.policies.values() if isinstance(policy, Learner)
        )


@pytest.mark.parametrize("damaged", [[8], [5], [8, 7, 6], [8, 7, 6, 5, 4]])
async def test_a_run_with_damaged_checkpoints_goes_on_from_the_one_before_as_if_nothing_had_happened(
    tmp_path: Path, damaged: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    await open_fake(tmp_path / "whole", "local", PAIR).fit()
    folder = tmp_path / "damaged"
    with pytest.raises((Killed, BaseExceptionGroup)):
        # Killed in the last round, and once more in the one before, so that the rounds' record is behind and ahead.
        await open_fake(folder, "local", PAIR, kill_at=150).fit()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await open_fake(folder, "local", PAIR).fit()
    for step in damaged:
        (folder / f"global_step_{step}" / "long" / "weights").unlink(missing_ok=True)
        (folder / f"global_step_{step}" / "short" / "weights").unlink(missing_ok=True)
    run = open_fake(folder, "local", PAIR)
    await run.fit()
    newest = max(set(range(1, 9)) - set(damaged))
    updates = sum(len(policy.updates) for policy in run.trainer.policies.values() if isinstance(policy, Learner))
    # Rounds b and c train both (steps 4 and 5) and short alone (6 to 8).
    assert updates == (0 if newest == 8 else sum(2 if step in (4, 5) else 1 for step in range(newest + 1, 9)))
    assert ("global_step_8 is damaged" in capsys.readouterr().out) == (8 in damaged)
    assert steps_of(folder) == steps_of(tmp_path / "whole")
    assert Record.load(folder).rounds == Record.load(tmp_path / "whole").rounds


async def test_a_damaged_checkpoint_that_a_round_needs_ends_the_run_before_anything_is_loaded(tmp_path: Path) -> None:
    await open_fake(tmp_path, "local", PAIR).fit()
    # As if the last round had just begun: `long` has the weights of step 5 in it.
    (tmp_path / "global_step_8" / "manifest.json").unlink()
    weights = tmp_path / "global_step_5" / "long" / "weights"
    weights.write_text(weights.read_text().replace("e", "E", 1))
    run = open_fake(tmp_path, "local", PAIR)
    with pytest.raises(DamagedCheckpointError, match=r"global_step_5 is needed and damaged \(long/weights has other"):
        await run.fit()
    assert all(policy.value == 0.0 for policy in run.trainer.policies.values() if isinstance(policy, Learner))
