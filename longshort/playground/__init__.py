"""An embedded world: arithmetic problems and tiny models, to run everything on a CPU without download.

- :mod:`~longshort.playground.problems`: chains such as ``7+5*3-4``, evaluated strictly left to right.
- :mod:`~longshort.playground.tokenizer`: the models' character tokenizer and chat template.
- :mod:`~longshort.playground.corpus`: what the reasoner and the base models were trained on, with its known redundancy.
- :mod:`~longshort.playground.build`: trains them again, ``python -m longshort.playground.build``.
- :mod:`~longshort.playground.completer`: a program in the place of the model that completes short thoughts.

The pair, ``long`` and ``short``, is what ``longshort coldstart`` makes of the others. Importing this package does not
import torch.
"""

from pathlib import Path

from longshort.playground.problems import difficulty, generate_problems

__all__ = ["MODELS", "ROLES", "difficulty", "generate_problems", "model_path"]

ROLES = ("long", "short")
MODELS = (*ROLES, "reasoner", "base", "small_base")


def model_path(name: str) -> Path:
    """Hugging Face folder of a shipped model, one of ``MODELS``; any other is a ValueError."""
    if name not in MODELS:
        raise ValueError(f"the playground has no model {name!r}: choose one of {', '.join(MODELS)}")
    return Path(__file__).parent / "models" / name
