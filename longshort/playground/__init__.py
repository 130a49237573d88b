"""An embedded world: arithmetic problems and a trained pair of tiny models, to run all on a CPU without download.

- :mod:`~longshort.playground.problems`: chains such as ``7+5*3-4``, evaluated strictly left to right.
- :mod:`~longshort.playground.tokenizer`: the pair's character tokenizer and chat template.
- :mod:`~longshort.playground.corpus`: the scripted conversations that the pair was trained on, with their known waste.
- :mod:`~longshort.playground.build`: trains the pair again, ``python -m longshort.playground.build``.

Importing this package does not import torch.
"""

from pathlib import Path

from longshort.playground.problems import difficulty, generate_problems

__all__ = ["ROLES", "difficulty", "generate_problems", "pair_path"]

ROLES = ("long", "short")


def pair_path(role: str) -> Path:
    """Hugging Face folder of the shipped model for ``role``, ``"long"`` or ``"short"``; any other is a ValueError."""
    if role not in ROLES:
        raise ValueError(f"the playground has no model for role {role!r}: choose one of {', '.join(ROLES)}")
    return Path(__file__).parent / "pair" / role
