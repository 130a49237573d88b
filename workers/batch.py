"""Views to verl's jagged ``TensorDict`` and back: the one place that knows verl's batch type.

Rows are packed end to end (jagged tensors), so nothing is padded. A row whose mask is all zero (a filler that makes the
batch divide) adds nothing to the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import response_from_nested

from longshort.episode import View
from longshort.policy import Rows, Sample


def _jagged(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row, dtype=dtype) for row in rows], layout=torch.jagged)


def filler_view(view: View) -> View:
    """A row of the smallest shape that trains nothing."""
    return View(view.prompt_ids[-1:], view.response_ids[:1], (0,), (0.0,))


def pad_to_multiple(samples: Sequence[Sample], divisor: int) -> list[Sample]:
    """``samples`` and as many fillers as make their number divide."""
    fillers = -len(samples) % divisor
    if not fillers:
        return list(samples)
    nothing = (0.0,)
    filler = Sample(
        filler_view(samples[0].view),
        0.0,
        nothing,
        None if samples[0].ref_log_probs is None else nothing,
        None if samples[0].rollout_is_weights is None else nothing,
    )
    return [*samples, *[filler] * fillers]


def view_batch(views: Sequence[View], **settings: Any) -> TensorDict:
    """B views, jagged: ``input_ids`` (B, prompt+response), ``responses`` and ``response_mask`` (B, response)."""
    ids = [view.prompt_ids + view.response_ids for view in views]
    mask = _jagged([view.mask for view in views], torch.int64)
    return tu.get_tensordict(
        {
            "input_ids": _jagged(ids, torch.int64),
            "position_ids": _jagged([range(len(row)) for row in ids], torch.int64),
            "prompts": _jagged([view.prompt_ids for view in views], torch.int64),
            "responses": _jagged([view.response_ids for view in views], torch.int64),
            "response_mask": mask,
            "loss_mask": mask.clone(),
        },
        settings,
    )


def sample_batch(samples: Sequence[Sample], **settings: Any) -> TensorDict:
    """:func:`view_batch` with ``old_log_probs``, ``advantages`` and, if present, ``ref_log_prob`` and
    ``rollout_is_weights``, all (B, response)."""
    batch = view_batch([sample.view for sample in samples], **settings)
    batch["old_log_probs"] = _jagged([sample.old_log_probs for sample in samples], torch.float32)
    batch["advantages"] = _jagged(
        [[sample.advantage] * len(sample.view.response_ids) for sample in samples], torch.float32
    )
    if samples[0].ref_log_probs is not None:
        batch["ref_log_prob"] = _jagged([sample.ref_log_probs or () for sample in samples], torch.float32)
    if samples[0].rollout_is_weights is not None:
        batch["rollout_is_weights"] = _jagged([sample.rollout_is_weights or () for sample in samples], torch.float32)
    return batch


def response_rows(values: torch.Tensor, batch: TensorDict) -> Rows:
    """Values of a whole-sequence output (B, prompt+response) at the positions that predict the response ids."""
    rows = response_from_nested(values, batch["response_mask"])
    return tuple(tuple(row.tolist()) for row in rows.unbind())
