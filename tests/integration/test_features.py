"""What verl offers a policy, on the real stack: two runs that together switch on all that a CPU can run.

Not proven here: Ulysses, packed sequences and flash attention, which need a GPU; that offloading saves memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from longshort.episode import Episode
from longshort.tracking import read_metrics

OWN = """
import torch
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla, register_adv_est, register_policy_loss

@register_adv_est("centred")
def centred(token_level_rewards, response_mask, index, config=None, **kwargs):
    scores = token_level_rewards.sum(-1)
    means = torch.stack([scores[[i for i, other in enumerate(index) if other == one]].mean() for one in index])
    # Not all zero, so that there is something to learn from random models too.
    advantages = (scores - means + torch.linspace(-1, 1, len(scores)))[:, None]
    return advantages, advantages

@register_policy_loss("twice")
def twice(**arguments):
    loss, metrics = compute_policy_loss_vanilla(**arguments)
    return 2 * loss, {**metrics, "actor/twice": 1.0}

class Problems:
    def __init__(self, data_files, tokenizer, processor, config):
        assert tokenizer is not None and config.train_batch_size == 4
        self.files = data_files

    def __len__(self):
        return 8

    def __getitem__(self, i):
        messages = [{"role": "user", "content": f"{i}+{i}=?"}]
        return {"raw_prompt": messages, "answer": 2 * i, "data_source": self.files[0]}

def score(data_source, solution_str, ground_truth, extra_info=None):
    assert data_source == "routed", data_source
    return {"score": 0.5, "acc": False}
"""


def train(folder: Path, plugin: Path, pair: dict[str, Path], *more: str) -> None:
    environment = {**os.environ, "VERL_USE_EXTERNAL_MODULES": "own_module", "PYTHONPATH": str(plugin)}
    command = [
        *(sys.executable, "-m", "longshort.cli", "train"),
        *(f"policies.{role}.model.path={path}" for role, path in pair.items()),
        "data.train_files=[routed]",
        "data.val_files=[]",
        "data.custom_cls={path: pkg://own_module, name: Problems}",
        "+reward.functions.routed={path: pkg://own_module, name: score}",
        "data.train_batch_size=4",
        "data.max_prompt_length=1024",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
        "actor_rollout_ref.actor.optim.lr=1e-2",
        "actor_rollout_ref.rollout.n=2",
        "actor_rollout_ref.rollout.max_model_len=1536",
        "team.max_turn_tokens={long: 24, short: 24}",
        "team.max_episode_tokens=96",
        "team.max_turns=2",
        "trainer.save_freq=1",
        f"trainer.default_local_dir={folder}",
        f"trainer.rollout_data_dir={folder}/rollouts",
        *("algorithm.adv_estimator=centred", "policies.short.actor.policy_loss.loss_mode=twice"),
        # LoRA with a reference, offloading, activation checkpointing, fixed micro-batches.
        *("policies.long.model.lora_rank=4", "policies.long.actor.use_kl_loss=true"),
        *(
            "policies.long.actor.fsdp_config.param_offload=true",
            "policies.long.actor.fsdp_config.optimizer_offload=true",
        ),
        "policies.long.model.enable_gradient_checkpointing=true",
        *("policies.long.actor.use_dynamic_bsz=false", "policies.long.rollout.log_prob_use_dynamic_bsz=false"),
        *(f"policies.long.{key}_micro_batch_size_per_gpu=2" for key in ("actor.ppo", "rollout.log_prob")),
        # Entropy bonus, aggregation, dual clip, FSDP2's own offload policy.
        *("policies.short.actor.entropy_coeff=0.01", "policies.short.actor.loss_agg_mode=seq-mean-token-mean"),
        *("policies.short.actor.clip_ratio_c=5.0", "policies.short.actor.fsdp_config.offload_policy=true"),
        *more,
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def folder(random_pair: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps with corrected log-probabilities and an adapter in the engine; then one that goes on in bypass mode,
    with merged weights."""
    folder, plugin = tmp_path_factory.mktemp("features"), tmp_path_factory.mktemp("plugin")
    (plugin / "own_module.py").write_text(OWN)
    corrected = ["algorithm.rollout_correction.rollout_is=token", "algorithm.rollout_correction.rollout_rs=token_k1"]
    corrected += ["algorithm.rollout_correction.rollout_rs_threshold=0.5_2.0", "trainer.total_training_steps=2"]
    train(folder, plugin, random_pair, *corrected)
    bypassed = ["algorithm.rollout_correction.bypass_mode=true", "trainer.total_training_steps=3"]
    # One update a step, so that the loss sees the mismatch alone.
    bypassed += ["actor_rollout_ref.actor.ppo_mini_batch_size=4"]
    bypassed += ["policies.short.actor.policy_loss.loss_mode=vanilla", "policies.long.model.lora.merge=true"]
    train(folder, plugin, random_pair, *bypassed, "trainer.resume_changed=true")
    return folder


def test_every_setting_trains_and_the_engine_samples_with_the_adapter(folder: Path) -> None:
    first, second, third = read_metrics(folder / "metrics.jsonl")
    for row in (first, second, third):
        assert row["long/grad_norm"] > 0
        assert row["short/grad_norm"] > 0
    for row in (first, second):
        assert row["short/actor/twice"] == 1.0, "the loss of one's own was not used"
        for role in ("long", "short"):
            assert row[f"{role}/log_prob_gap_max"] < 1e-3
            assert row[f"{role}/rollout_corr/rollout_is_mean"] == pytest.approx(1.0, abs=1e-3)
            assert row[f"{role}/rollout_corr/rollout_rs_masked_fraction"] == 0.0
    assert first["long/kl"] == pytest.approx(0.0, abs=1e-9), "a fresh adapter changes nothing"
    assert second["long/kl"] > 1e-6, "the reference is not the actor without its adapter"


def test_bypass_mode_goes_on_from_the_saved_adapter_with_merged_weights(folder: Path) -> None:
    third = read_metrics(folder / "metrics.jsonl")[2]
    assert "long/log_prob_gap" not in third
    # The merged weights are sent in bfloat16, so the mismatch is small but not nothing.
    assert abs(third["long/rollout_corr/k3_kl"]) < 1e-2
    assert abs(third["short/rollout_corr/k3_kl"]) < 1e-6


def test_a_checkpoint_holds_the_adapter_and_the_model_with_it_merged_in(
    folder: Path, random_pair: dict[str, Path]
) -> None:
    saved = folder / "global_step_2" / "long"
    ids = torch.arange(3, 40)[None]
    base = AutoModelForCausalLM.from_pretrained(random_pair["long"])
    plain = base(ids).logits
    adapted = PeftModel.from_pretrained(base, str(saved / "lora_adapter"))(ids).logits
    merged = AutoModelForCausalLM.from_pretrained(saved / "huggingface")(ids).logits
    assert torch.allclose(adapted, merged, atol=1e-4)
    assert not torch.allclose(plain, merged, atol=1e-3)


def test_every_episode_is_on_disk_with_the_score_of_the_function_for_its_source(folder: Path) -> None:
    for step in (1, 2, 3):
        lines = (folder / "rollouts" / f"{step}.jsonl").read_text().splitlines()
        assert len(lines) == 8
        for line in lines:
            episode, row = Episode.from_json(line), json.loads(line)
            assert episode.problem.source == "routed"
            assert row["step"] == step
            expected = 0.5 if episode.outcome == "answered" else 0.0
            assert row["rewards"]["long/correct"] == expected
