"""Length rewards by name. A file of one's own registers more; it must be imported before the name is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import TypeVar

from longshort.length_rewards.base import LengthReward

Reward = TypeVar("Reward", bound=type[LengthReward])

LENGTH_REWARDS: dict[str, type[LengthReward]] = {}


def register(name: str) -> Callable[[Reward], Reward]:
    """Class decorator that makes a :class:`LengthReward` known by ``name``.

    Example::

        @register("brief")
        @dataclass(frozen=True)
        class Brief(GroupReward):
            scale: float = 1000.0

            def of_group(self, group: Group) -> list[float]:
                return [-length / self.scale for length in group.lengths]

    Raises:
        ValueError: the name is taken, or the class is no dataclass.
    """

    def add(reward: Reward) -> Reward:
        if name in LENGTH_REWARDS:
            raise ValueError(f"length reward {name!r} is registered already; give {reward.__name__} another name")
        if not is_dataclass(reward):
            raise ValueError(f"length reward {name!r} is no dataclass; put @dataclass under @register({name!r})")
        reward.name = name
        LENGTH_REWARDS[name] = reward
        return reward

    return add


def make_length_reward(name: str, settings: Mapping[str, object]) -> LengthReward:
    """The length reward ``name``; what ``settings`` leaves out keeps its default.

    Raises:
        ValueError: no such name, no such setting, or a value that the setting cannot have.
    """
    if name not in LENGTH_REWARDS:
        raise ValueError(f"no length reward is named {name!r}; give one of {', '.join(sorted(LENGTH_REWARDS))}")
    reward = LENGTH_REWARDS[name]
    known = [each.name for each in fields(reward) if each.init]  # type: ignore[arg-type]
    if unknown := sorted(set(settings) - set(known)):
        remedy = f"it has {', '.join(known)}" if known else "leave it out, this one has no settings"
        shown = ", ".join(f"{each}={settings[each]!r}" for each in unknown)
        raise ValueError(f"length reward {name} has no setting {shown}; {remedy}")
    return reward(**settings)
