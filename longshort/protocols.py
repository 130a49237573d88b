"""The protocols by name, as a recipe's ``team`` describes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from longshort.protocol import LONG_SHORT, Protocol
from longshort.solo import SOLO, solo_protocol

# Names of the policies that `train` may select, by protocol; with none, a team only plays.
TRAINABLE: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "long_short": {"long": ("long",), "short": ("short",), "both": ("long", "short"), "none": ()},
    "solo": {SOLO: (SOLO,), "none": ()},
}
_MAKERS: Mapping[str, Callable[[Mapping[str, Any]], Protocol]] = {
    "long_short": lambda team: LONG_SHORT,
    # The stored recipe of a run may lack `limit_in_prompt`.
    "solo": lambda team: solo_protocol(team.get("limit_in_prompt") or team["max_episode_tokens"], team["family"]),
}


def protocol_of(team: Mapping[str, Any]) -> Protocol:
    """The protocol that ``team.protocol`` names, with the limits and the wording of ``team``."""
    return _MAKERS[team["protocol"]](team)


def roles_of(protocol: str) -> tuple[str, ...]:
    """The roles of the protocol of this name."""
    return tuple(dict.fromkeys(role for trained in TRAINABLE[protocol].values() for role in trained))
