"""Views to verl's jagged ``TensorDict`` and back: the one place that knows verl's batch type.

Rows are packed end to end (jagged tensors), so nothing is padded. A row whose mask is all zero (a filler that makes the
batch divide) adds nothing to the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from longshort.episode import View
from longshort.policy import Rows, Sample

# A step of a large run has millions of tokens: each column is read once, into one array, and never row by row.


def _lengths(rows: Sequence[Sequence[float]]) -> np.ndarray:
    return np.array([len(row) for row in rows])


def _flat(rows: Sequence[Sequence[float]], dtype: type, lengths: np.ndarray) -> np.ndarray:
    """The rows end to end."""
    assert np.array_equal(_lengths(rows), lengths), "a column's rows differ in length from the view's"
    return np.fromiter(chain.from_iterable(rows), dtype=dtype, count=lengths.sum())


def _jagged(values: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
    """Values end to end as (B, length)."""
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    # Left to itself torch computes them late, and then pads further than the longest row.
    longest, shortest = int(lengths.max()), int(lengths.min())
    return torch.nested.nested_tensor_from_jagged(
        torch.from_numpy(values), offsets=torch.from_numpy(offsets), min_seqlen=shortest, max_seqlen=longest
    )


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
    prompt_lengths = _lengths([view.prompt_ids for view in views])
    lengths = _lengths([view.response_ids for view in views])
    rows = prompt_lengths + lengths
    parts = [ids for view in views for ids in (view.prompt_ids, view.response_ids)]
    part_lengths = np.stack([prompt_lengths, lengths], axis=1).ravel()
    ids = _flat(parts, np.int64, part_lengths)
    in_response = np.repeat(np.tile([False, True], len(views)), part_lengths)
    starts = np.cumsum(rows) - rows
    mask = _flat([view.mask for view in views], np.int64, lengths)
    return tu.get_tensordict(
        {
            "input_ids": _jagged(ids, rows),
            "position_ids": _jagged(np.arange(len(ids)) - np.repeat(starts, rows), rows),
            "prompts": _jagged(ids[~in_response], prompt_lengths),
            "responses": _jagged(ids[in_response], lengths),
            "response_mask": _jagged(mask, lengths),
            "loss_mask": _jagged(mask.copy(), lengths),
        },
        settings,
    )


def sample_batch(samples: Sequence[Sample], **settings: Any) -> TensorDict:
    """:func:`view_batch` with ``old_log_probs``, ``advantages`` and, if present, ``ref_log_prob`` and
    ``rollout_is_weights``, all (B, response)."""
    batch = view_batch([sample.view for sample in samples], **settings)
    lengths = _lengths([sample.view.response_ids for sample in samples])

    def column(rows: Sequence[Sequence[float]]) -> torch.Tensor:
        return _jagged(_flat(rows, np.float32, lengths), lengths)

    batch["old_log_probs"] = column([sample.old_log_probs for sample in samples])
    advantages = np.array([sample.advantage for sample in samples], dtype=np.float32)
    batch["advantages"] = _jagged(np.repeat(advantages, lengths), lengths)
    if samples[0].ref_log_probs is not None:
        batch["ref_log_prob"] = column([sample.ref_log_probs or () for sample in samples])
    if samples[0].rollout_is_weights is not None:
        batch["rollout_is_weights"] = column([sample.rollout_is_weights or () for sample in samples])
    return batch


def response_rows(values: torch.Tensor, batch: TensorDict) -> Rows:
    """Values of a whole-sequence output (B, prompt+response) at the positions that predict the response ids."""
    flat = values.values().float().numpy()
    ends = values.offsets()[1:].tolist()
    lengths = batch["response_mask"].offsets().diff().tolist()
    # The value at a position is that of the id after it.
    return tuple(tuple(flat[end - length - 1 : end - 1].tolist()) for end, length in zip(ends, lengths, strict=True))
