"""What a new round changes in a policy's training engines, which stay up."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig
from verl.utils.config import omega_conf_to_dataclass


def renew_optimizer(engine: Any, optim: DictConfig) -> None:
    """Give verl's engine an optimiser without history, and a learning-rate schedule that begins."""
    engine.optimizer_config = omega_conf_to_dataclass(optim)
    engine.optimizer = engine._build_optimizer(engine.module)
    engine.lr_scheduler = engine._build_lr_scheduler(engine.optimizer)
    # verl's own checkpoints would keep the former ones alive.
    engine.checkpoint_manager.optimizer = engine.optimizer
    engine.checkpoint_manager.lr_scheduler = engine.lr_scheduler


@torch.no_grad()
def copy_weights(source: Any, target: Any) -> None:
    """Copy the weights of one engine into another of the same model and sharding; every rank calls it."""
    ours, theirs = dict(source.module.named_parameters()), dict(target.module.named_parameters())
    assert ours.keys() == theirs.keys(), "actor and reference are the same model"
    for name, parameter in ours.items():
        _local(theirs[name]).copy_(_local(parameter))


def _local(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter
