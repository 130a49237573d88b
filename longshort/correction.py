"""verl's rollout correction: training on tokens that another implementation of the policy has sampled.

The engine and the trainer compute slightly different log-probabilities for the same weights. verl's settings
(``algorithm.rollout_correction``) offer three ways to live with it:

- neither set: log-probabilities are computed again by the trainer, and the difference is a metric (``log_prob_gap``);
- ``rollout_is``, ``rollout_rs``: computed again, then importance weights and rejection make up for the difference;
- ``bypass_mode``: the engine's are taken as they are, one forward pass less; the loss itself then corrects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from longshort.policy import Sample


@dataclass(frozen=True, slots=True)
class RolloutCorrection:
    """The settings of verl's ``algorithm.rollout_correction`` that act outside of the loss."""

    bypass_mode: bool = False
    rollout_is: str | None = None
    rollout_is_threshold: float | str = 2.0
    rollout_is_batch_normalize: bool = False
    rollout_rs: str | None = None
    rollout_rs_threshold: float | str | None = None

    @property
    def weighs_or_rejects(self) -> bool:
        """Whether samples change before the update."""
        return not self.bypass_mode and (self.rollout_is is not None or self.rollout_rs is not None)


AS_COMPUTED_AGAIN = RolloutCorrection()


def correct(samples: Sequence[Sample], settings: RolloutCorrection) -> tuple[list[Sample], dict[str, float]]:
    """Importance weights for every sampled token, rejected tokens masked; and verl's metrics of the mismatch.

    B samples are padded to (B, response) for verl's function, of which no padding comes back.
    """
    import numpy as np
    import torch
    from torch.nn.utils.rnn import pad_sequence
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_rejection_mask

    def padded(rows: Sequence[Sequence[float]]) -> torch.Tensor:
        arrays = [np.fromiter(row, dtype=np.float32, count=len(row)) for row in rows]
        return pad_sequence([torch.from_numpy(array) for array in arrays], batch_first=True)

    weights, mask, metrics = compute_rollout_correction_and_rejection_mask(
        old_log_prob=padded([sample.old_log_probs for sample in samples]),
        rollout_log_prob=padded([sample.view.log_probs for sample in samples]),
        response_mask=padded([sample.view.mask for sample in samples]),
        rollout_is=settings.rollout_is,
        rollout_is_threshold=settings.rollout_is_threshold,
        rollout_is_batch_normalize=settings.rollout_is_batch_normalize,
        rollout_rs=settings.rollout_rs,
        rollout_rs_threshold=settings.rollout_rs_threshold,
    )
    weight_rows = None if weights is None else weights.batch["rollout_is_weights"].tolist()
    corrected = []
    for i, (sample, kept) in enumerate(zip(samples, mask.long().tolist(), strict=True)):
        length = len(sample.view.response_ids)
        view = replace(sample.view, mask=tuple(kept[:length]))
        own = None if weight_rows is None else tuple(weight_rows[i][:length])
        corrected.append(replace(sample, view=view, rollout_is_weights=own))
    return corrected, metrics
