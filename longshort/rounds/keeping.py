"""Whose weights are where: what rounds hand on to each other, through checkpoints, and how a run goes on from them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from longshort import checkpoints
from longshort.display import Display
from longshort.policy import Policy
from longshort.rounds.record import FinishedRound, Record, Weights
from longshort.rounds.round import Round, State
from longshort.rounds.schedule import CARRIED
from longshort.rounds.selection import Candidate


@dataclass(frozen=True)
class Keeper:
    """Weights, optimisers and references of a run's policies from round to round.

    Attributes:
        folder: of the run; its checkpoints are there.
        keep: how many of the newest checkpoints stay beside those that rounds need; None: all.
    """

    folder: Path
    rounds: tuple[Round, ...]
    keep: int | None
    display: Display

    @property
    def policies(self) -> list[Policy]:
        """All members of the team."""
        return list(self.rounds[0].trainer.policies.values())

    @property
    def learners(self) -> list[Policy]:
        """The policies that learn in any round."""
        return [policy for policy in self.policies if policy.trainable]

    def start(self) -> State:
        """Where a run stands that begins: what rounds wrote down is of no use without their weights."""
        record = Record(reasoner=Record.load(self.folder).reasoner)
        return State(record, _weights_before(record, 0, self.learners))

    async def resume(self) -> State:
        """Go on from the newest checkpoint, if there is one.

        Raises:
            ValueError: more rounds of the folder are over than the recipe has.
        """
        record = Record.load(self.folder)
        newest = checkpoints.newest_intact(self.folder, self._tell)
        if newest is None:
            return self.start()
        over = record.rounds
        if len(over) > len(self.rounds):
            raise ValueError(
                f"{len(over)} rounds of {self.folder} are over, but the recipe has {len(self.rounds)}; give it "
                "the others again, or choose another trainer.default_local_dir"
            )
        over = self._over(record, int(json.loads((newest / checkpoints.STATE).read_text())["step"]))
        if over and over[-1].stopped is None and over[-1].last_step < self.rounds[len(over) - 1].last:
            # The last round was made longer.
            over = over[:-1]
        state = State(replace(record, rounds=over), _weights_before(record, len(over), self.learners))
        if len(over) == len(self.rounds):
            self.display.stage(f"nothing is left to do: all {len(over)} rounds of {self.folder} are over")
        else:
            self.display.stage(f"resuming from {newest}")
            async with self._engines_asleep():
                await self._return(len(over), newest, state)
        return state

    async def begin(self, number: int, state: State) -> None:
        """New optimisers and references for those that learn; engines and workers stay up."""
        each = self.rounds[number]
        state.candidates, state.stopped = [], None
        each.guard.reset()
        for policy in self.policies:
            # Who learns for the first time has nothing to carry on.
            carry = [what for what in CARRIED if self._origin(policy, number, what) != number]
            await policy.begin_round(policy in each.trainer.learners, _optimizer(each, policy), carry)

    async def save(self, each: Round, state: State) -> None:
        """The checkpoint of ``state.step``; old ones that nothing needs are removed."""
        await checkpoints.save(self.folder, state.step, each.trainer.learners, self._state(each, state))
        self.remove_old(state)

    async def save_start(self, state: State) -> None:
        """What the run begins with, for a round that keeps none of its checkpoints to go back to."""
        await checkpoints.save(self.folder, 0, self.learners, self._state(self.rounds[0], state))
        state.weights = {policy.name: 0 for policy in self.learners}

    async def go_back(self, policies: Sequence[Policy], weights: Weights, number: int) -> None:
        """Give policies the weights of these steps, in workers and engines, before round ``number``."""
        async with self._engines_asleep():
            for policy in policies:
                await self._load(policy, weights[policy.name], self._carries_optimizer(policy, number))

    def remove_old(self, state: State) -> None:
        """Keep the newest, what rounds go on from, and the candidates."""
        if self.keep is None:
            return
        needed = {step for step in state.weights.values() if step is not None}
        needed |= {candidate.step for candidate in state.candidates}
        saved = checkpoints.steps(self.folder)
        needed |= set(saved[max(0, len(saved) - self.keep) :])
        checkpoints.keep_only(self.folder, [checkpoints.folder_of(self.folder, step) for step in needed])

    async def _return(self, number: int, newest: Path, state: State) -> None:
        """To the checkpoint ``newest``, in round ``number`` or just before it."""
        each = self.rounds[number]
        saved = json.loads((newest / checkpoints.STATE).read_text())
        within = saved["step"] > each.first
        needed = {step for step in state.weights.values() if step is not None}
        if within:
            needed |= {candidate["step"] for candidate in saved["candidates"]}
        for step in sorted(needed - {saved["step"]}):
            checkpoints.require(checkpoints.folder_of(self.folder, step), checksums=True)
        for policy in self.learners:
            reference, optimizer = (self._origin(policy, number, what) for what in ("reference", "optimizer"))
            weights = _weights_before(state.record, reference, self.learners)
            await self._load(policy, weights[policy.name], with_optimizer=False)
            # First what an earlier round's start gave it, then whether it learns in this one.
            await policy.begin_round(True, _optimizer(self.rounds[optimizer], policy), ())
            await policy.begin_round(policy in each.trainer.learners, {}, CARRIED)
            if not (within and policy in each.trainer.learners):
                await self._load(policy, state.weights[policy.name], self._carries_optimizer(policy, number))
        if within:
            await checkpoints.load(newest, each.trainer.learners)
            state.candidates = [Candidate(**candidate) for candidate in saved["candidates"]]
            each.guard.load_state_dict(saved["guard"])
            state.stopped = saved.get("stopped")
            for role, reward in each.trainer.length_rewards.items():
                reward.load_state_dict(saved["length_rewards"][role])
        each.trainer.order.load_state_dict(saved["order"])
        each.trainer.lengths.load_state_dict(saved["lengths"])
        state.step = int(saved["step"])

    def _over(self, record: Record, step: int) -> tuple[FinishedRound, ...]:
        """Rounds that are over at ``step``; one that ended with a checkpoint that was set aside since is done again."""
        over = record.rounds
        while over and over[-1].last_step > step and checkpoints.was_set_aside(self.folder, over[-1].last_step):
            over = over[:-1]
        return over

    def _tell(self, sentence: str) -> None:
        self.display.table("resuming", ("",), [(sentence,)])

    def _origin(self, policy: Policy, number: int, what: str) -> int:
        """The round with whose start the optimiser or the reference began that a policy has in round ``number``."""
        learned = [n for n in range(number + 1) if policy in self.rounds[n].trainer.learners]
        while len(learned) > 1 and what in self.rounds[learned[-1]].config.carry:
            learned.pop()
        return learned[-1] if learned else number

    def _carries_optimizer(self, policy: Policy, number: int) -> bool:
        """Whether the next round, from ``number`` on, in which a policy learns goes on with its optimiser."""
        learning = [each for each in self.rounds[number:] if policy in each.trainer.learners]
        return bool(learning) and "optimizer" in learning[0].config.carry

    @asynccontextmanager
    async def _engines_asleep(self) -> AsyncIterator[None]:
        """Within, workers' weights may change; engines get them at the end."""
        for policy in self.policies:
            await policy.sleep()
        yield
        for policy in self.learners:
            await policy.sync_weights()
        for policy in self.policies:
            await policy.wake_up()

    async def _load(self, policy: Policy, step: int | None, with_optimizer: bool) -> None:
        """A policy as the checkpoint of ``step`` has it; None: what the run began with, which it has at its start."""
        if step is None:
            return
        checkpoint = checkpoints.folder_of(self.folder, step)
        checkpoints.require(checkpoint)
        folder = (checkpoint / policy.name).absolute()
        if with_optimizer:
            await policy.load(folder)
        else:
            await policy.load_weights(folder)

    def _state(self, each: Round, state: State) -> dict[str, Any]:
        return {
            "order": each.trainer.order.state_dict(),
            "lengths": each.trainer.lengths.state_dict(),
            "round": each.name,
            "candidates": [asdict(candidate) for candidate in state.candidates],
            "stopped": state.stopped,
            "guard": each.guard.state_dict(),
            "length_rewards": {role: r.state_dict() for role, r in each.trainer.length_rewards.items()},
        }


def _optimizer(each: Round, policy: Policy) -> dict[str, Any]:
    """verl's settings of a policy's optimiser in a round."""
    settings = OmegaConf.to_container(each.config.policies[policy.name].actor.optim)
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}


def _weights_before(record: Record, number: int, policies: Sequence[Policy]) -> Weights:
    """Whose checkpoint each policy has when round ``number`` begins."""
    if number > 0:
        return record.rounds[number - 1].weights
    return {policy.name: 0 if record.baselines else None for policy in policies}
