"""What every length reward is: a callable on all groups of a batch, whose settings are the fields of a dataclass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from longshort.length_rewards.group import Group


class LengthReward(ABC):
    """The length part LM of a reward eta * correct + lambda * format + mu * LM; higher is better.

    It sees a whole batch, because some methods compare groups. Give each trained role an instance of its own and call
    it once per training step: a method may keep a state from step to step.
    """

    # Set by ``register``.
    name: ClassVar[str] = ""

    @abstractmethod
    def __call__(self, groups: Sequence[Group]) -> list[list[float]]:
        """One finite value per answer, in the order of the groups and of their answers."""

    def state_dict(self) -> dict[str, Any]:
        """What a run must keep to go on exactly where it stopped, as JSON can hold it; empty for most methods."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave.

        Raises:
            ValueError: the state is that of another method.
        """
        if state:
            raise ValueError(
                f"length reward {self.name} keeps no state but is given {sorted(state)}; resume with the length reward "
                "that the checkpoint was made with"
            )


class GroupReward(LengthReward):
    """A length reward that values every group by itself."""

    @abstractmethod
    def of_group(self, group: Group) -> list[float]:
        """One value per answer of ``group``."""

    def __call__(self, groups: Sequence[Group]) -> list[list[float]]:
        return [self.of_group(group) for group in groups]
