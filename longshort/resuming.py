"""Going on with a run under the recipe that it began with: what may have changed since, and what may not."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from longshort import checkpoints
from longshort.hiding import shown
from longshort.rounds.schedule import leaves

CONFIG = "config.yaml"
# Settings that decide what is learned from what. Devices, engines, cadences and trackers may change.
MATTERING = (
    *("seed", "train", "team.*", "algorithm.*", "reward.*", "custom_reward_function.*", "rounds.*", "selection.*"),
    *("guard.*", "carry*", "data.train_files*", "data.train_batch_size", "data.max_prompt_length", "data.seed"),
    *("data.custom_cls.*", "policies.*.model.*", "policies.*.actor.*", "policies.*.rollout.n"),
    *("policies.*.rollout.temperature", "policies.*.rollout.top_p", "policies.*.rollout.top_k"),
)
HARMLESS = (
    # A run may go on for longer.
    "*.total_training_steps",
    *("reward.grading_workers", "reward.grading_timeout_s", "reward.function_timeout_s"),
    *("*.trainer.save_freq", "*.trainer.test_freq"),
    *("rounds.*.evaluation.*", "rounds.*.data.val_files*"),
    *("*.ppo_max_token_len_per_gpu", "*.ppo_micro_batch_size*", "*.use_dynamic_bsz", "*.fsdp_config.*", "*.profiler.*"),
    *("*.checkpoint.*", "*.ulysses_sequence_parallel_size", "*.use_torch_compile", "*.enable_gradient_checkpointing"),
)


def refuse_mixing(folder: Path, config: DictConfig) -> None:
    """ValueError where ``folder`` holds checkpoints of a run that ``config`` does not go on with."""
    if checkpoints.latest(folder) is None:
        return
    if config.trainer.resume_mode == "disable":
        raise ValueError(
            f"trainer.default_local_dir={folder} holds checkpoints of an earlier run; choose another folder, or "
            "trainer.resume_mode=auto to go on with it"
        )
    refuse_changes(folder, config)


def refuse_changes(folder: Path, config: DictConfig) -> None:
    """ValueError where the run in ``folder`` was begun with other settings, and the change decides what is learned."""
    if not (folder / CONFIG).is_file() or config.trainer.resume_changed:
        return
    before = dict(leaves(OmegaConf.to_container(OmegaConf.load(folder / CONFIG))))
    now = dict(leaves(shown(config)))
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key) and _matters(key)]
    if changed:
        key = changed[0]
        others = f" (and {len(changed) - 1} other settings)" if len(changed) > 1 else ""
        raise ValueError(
            f"the run in {folder} was begun with {key}={before.get(key)}, and it is {now.get(key)} now{others}; go "
            "back to it, choose another trainer.default_local_dir, or accept it with trainer.resume_changed=true"
        )


def _matters(key: str) -> bool:
    matching = (fnmatchcase(key, pattern) for pattern in MATTERING)
    return any(matching) and not any(fnmatchcase(key, pattern) for pattern in HARMLESS)
