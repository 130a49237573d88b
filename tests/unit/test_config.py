"""Recipes: who gets which value, and contradictions that are found before anything is loaded.

Not proved here: that verl and vLLM accept every value of theirs (they check their own when a run starts), and that
unknown keys in a recipe's file, outside ``policies``, are noticed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from longshort import config as config_module
from longshort.config import as_list, build_config, config_dir
from longshort.validation import trained_policies, validate

ROOT = Path(__file__).parents[2]
RECIPES = sorted(file.stem for file in config_dir().glob("*.yaml") if file.stem not in ("base", "verl"))
POLICIES = ("long", "short")


@pytest.fixture(scope="module")
def shared() -> DictConfig:
    return build_config("local")


@pytest.fixture
def local(shared: DictConfig) -> DictConfig:
    """The recipe ``local``, to be changed by a test."""
    return deepcopy(shared)


@pytest.fixture(scope="module")
def overridden() -> DictConfig:
    """The recipe ``local`` with a command line that has some of everything."""
    return build_config(
        "local",
        [
            "actor_rollout_ref.actor.clip_ratio=0.1",
            "actor_rollout_ref.rollout.n=4",
            "policies.long.actor.grad_clip=0.5",
            "policies.short.model.path=/models/s",
            "+actor_rollout_ref.model.override_config.for_all=6",
            "+policies.long.model.override_config.for_one=5",
            "+notes={by: me}",
            "trainer.total_training_steps=7",
            "team.max_episode_tokens=390",
        ],
    )


def write_recipe(folder: Path, text: str) -> Path:
    """A recipe ``mine`` in a folder of its own, on top of ``local``."""
    folder.mkdir(exist_ok=True)
    (folder / "mine.yaml").write_text(f"defaults: [local, _self_]\n{text}\n")
    return folder


def each(config: DictConfig, key: str) -> list[object]:
    """A key's value in each policy."""
    return [OmegaConf.select(config, f"policies.{name}.{key}") for name in POLICIES]


# Shipped recipes


@pytest.mark.parametrize("name", RECIPES)
def test_every_shipped_recipe_builds_complete_and_without_open_references(name: str) -> None:
    config = build_config(name)
    text = OmegaConf.to_yaml(config)
    assert "${" not in text
    assert "actor_rollout_ref" not in config
    assert all(set(config.policies[policy]) >= {"actor", "ref", "rollout", "model"} for policy in config.policies)


def test_building_a_recipe_imports_neither_torch_nor_verl_ray_or_vllm() -> None:
    code = (
        "import sys; from longshort.config import build_config; build_config('local'); "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'verl', 'ray', 'vllm', 'transformers'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_playground_models_are_named_by_role(local: DictConfig) -> None:
    assert [Path(path).parts[-3:] for path in each(local, "model.path")] == [
        ("playground", "models", "long"),
        ("playground", "models", "short"),
    ]


# Which policy gets which value


def test_a_shared_key_goes_to_all_policies_and_a_policys_key_to_one(overridden: DictConfig) -> None:
    assert each(overridden, "actor.clip_ratio") == [0.1, 0.1]
    assert each(overridden, "actor.grad_clip") == [0.5, 1.0]


def test_verls_references_follow_within_each_policy(overridden: DictConfig) -> None:
    for follower in ("rollout.n", "actor.rollout_n", "ref.rollout_n"):
        assert each(overridden, follower) == [4, 4]
    assert each(overridden, "rollout.prometheus.served_model_name") == each(overridden, "model.path")
    assert each(overridden, "model.path")[1] == "/models/s"


def test_every_absolute_reference_of_verls_groups_is_followed_in_the_policy_it_was_changed_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Moved out of ``actor_rollout_ref`` they would all fall back to their defaults without a word."""
    monkeypatch.setattr("longshort.validation.validate", lambda config: None)
    composed = config_module._compose("base", ["data.train_files=[a.json]"], config_dir())
    followers = dict(_references(composed.actor_rollout_ref))
    assert len(followers) > 35
    changed = {}
    for source in sorted(set(followers.values())):
        value = OmegaConf.select(composed, f"actor_rollout_ref.{source}", throw_on_missing=False)
        if isinstance(value, bool | int | str | None):
            changed[source] = (not value) if isinstance(value, bool) else f"{value or 7}1"
    overrides = [f"++policies.long.{source}={value}" for source, value in changed.items()]
    config = build_config("base", ["data.train_files=[a.json]", *overrides])
    default = build_config("base", ["data.train_files=[a.json]"])
    for follower, source in followers.items():
        if source in changed and follower not in changed:
            found = OmegaConf.select(config, f"policies.long.{follower}")
            assert str(found) == str(changed[source]), (follower, source)
            other = OmegaConf.select(config, f"policies.short.{follower}")
            assert other == OmegaConf.select(default, f"policies.short.{follower}")


def _references(node: DictConfig, path: str = "") -> Iterator[tuple[str, str]]:
    """Keys below ``actor_rollout_ref`` with what they refer to there."""
    for key in node:
        child = node._get_node(key)
        raw = child._value() if child is not None else None
        if isinstance(raw, str) and (match := re.match(r"\$\{oc\.select:actor_rollout_ref\.([\w.]+)", raw)):
            yield f"{path}{key}", match[1]
        elif isinstance(child, DictConfig) and isinstance(raw, dict):
            yield from _references(child, f"{path}{key}.")


def test_bypass_mode_selects_the_loss_that_corrects(local: DictConfig) -> None:
    bypass = "algorithm.rollout_correction.bypass_mode=true"
    config = build_config("local", [bypass, "algorithm.rollout_correction.loss_type=reinforce"])
    assert each(config, "actor.policy_loss.loss_mode") == ["bypass_mode"] * 2
    assert each(config, "actor.policy_loss.rollout_correction.loss_type") == ["reinforce"] * 2
    assert each(local, "actor.policy_loss.loss_mode") == ["vanilla"] * 2
    with pytest.raises(ValueError, match=r"policies\.short\.actor\.policy_loss\.loss_mode=gspo has no effect"):
        build_config("local", [bypass, "policies.short.actor.policy_loss.loss_mode=gspo"])
    with pytest.raises(ValueError, match=r"set algorithm\.rollout_correction\.bypass_mode=true"):
        build_config("local", ["actor_rollout_ref.actor.policy_loss.loss_mode=bypass_mode"])


def test_functions_by_data_source_are_the_users_to_name(tmp_path: Path) -> None:
    folder = write_recipe(tmp_path, "reward: {functions: {my/source: {path: pkg://math, name: prod}}}")
    assert build_config("mine", folder=folder).reward.functions["my/source"].name == "prod"


def test_references_to_other_parts_follow_them(overridden: DictConfig) -> None:
    assert each(overridden, "actor.optim.total_training_steps") == [7, 7]
    assert each(overridden, "rollout.response_length") == [390, 390]


def test_new_keys_come_with_a_plus(overridden: DictConfig) -> None:
    assert each(overridden, "model.override_config.for_all") == [6, 6]
    assert each(overridden, "model.override_config.for_one") == [5, None]
    assert overridden.notes.by == "me"


def test_what_is_nearer_wins_wherever_it_stands_and_of_equals_the_last(tmp_path: Path) -> None:
    folder = write_recipe(
        tmp_path,
        "actor_rollout_ref: {actor: {grad_clip: 0.2, clip_ratio_low: 0.2, clip_ratio_high: 0.2, clip_ratio_c: 2.0}}\n"
        "policies: {long: {actor: {clip_ratio_low: 0.3, clip_ratio_high: 0.3, clip_ratio_c: 3.0}}}",
    )
    overrides = [
        "policies.long.actor.clip_ratio_c=9.0",
        "policies.long.actor.clip_ratio_c=5.0",
        "actor_rollout_ref.actor.clip_ratio_high=0.4",
        "actor_rollout_ref.actor.clip_ratio_c=4.0",
    ]
    config = build_config("mine", overrides, folder)
    assert each(config, "actor.grad_clip") == [0.2, 0.2]
    assert each(config, "actor.clip_ratio_low") == [0.3, 0.2]
    assert each(config, "actor.clip_ratio_high") == [0.4, 0.4]
    assert each(config, "actor.clip_ratio_c") == [5.0, 4.0]


def test_a_key_that_is_not_there_cannot_be_read(local: DictConfig) -> None:
    with pytest.raises(AttributeError):
        _ = local.data.train_batchsize


def test_a_recipe_of_ones_own_may_lie_in_any_folder(tmp_path: Path) -> None:
    folder = write_recipe(tmp_path / "my recipes, (1)", "data: {train_batch_size: 32}")
    config = build_config("mine", ["data.max_prompt_length=48"], folder)
    assert (config.data.train_batch_size, config.data.max_prompt_length) == (32, 48)


def test_the_shipped_recipes_may_lie_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = tmp_path / "checkout, (1) [new]=x"
    moved.mkdir()
    for file in config_dir().glob("*.yaml"):
        (moved / file.name).write_text(file.read_text())
    monkeypatch.setattr(config_module, "config_dir", lambda: moved)
    assert build_config("demo").data.train_batch_size == 16


def test_data_files_are_one_path_or_a_list(local: DictConfig) -> None:
    assert as_list("a.parquet") == ["a.parquet"]
    assert as_list(local.data.train_files) == list(local.data.train_files)


@pytest.mark.parametrize(("train", "names"), [("long", ("long",)), ("short", ("short",)), ("both", POLICIES)])
def test_train_selects_policies(local: DictConfig, train: str, names: tuple[str, ...]) -> None:
    local.train = train
    assert trained_policies(local) == names


# What cannot be composed


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("data.train_batchsize=8", "data.train_batchsize"),
        ("policies.long.actor.optim.lrr=1", "policies.long.actor.optim.lrr=1"),
        ("policies.third.actor.optim.lr=1", "third"),
        ("policies.long.actor.optim.lr=1,2", "policies.long.actor.optim.lr=1,2"),
        ("data.train_batch_size", "data.train_batch_size"),
        ("~policies.long.actor.optim.lr", "~policies.long.actor.optim.lr"),
        ("policies.long.model.path=playground:mid", "'mid'"),
        ("actor_rollout_ref.rollout.seed=${nope}", "nope"),
        ("data.train_batch_size=[", "data.train_batch_size"),
    ],
)
def test_an_override_that_fits_nothing_is_named_in_one_sentence(override: str, named: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        build_config("local", [override])
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("policies: {long: {actor: {optim: {lrr: 1}}}}", "lrr"),
        ("data: [", "mine.yaml"),
        ("defaults: [nowhere]", "defaults"),
    ],
)
def test_a_recipe_that_fits_nothing_is_named_in_one_sentence(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        build_config("mine", [], write_recipe(tmp_path, text))
    assert named in str(caught.value)


def test_an_unknown_recipe_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=rf"no recipe 'nope' .* {', '.join(RECIPES)}"):
        build_config("nope")


@pytest.mark.parametrize("key", ["data.train_files", "model.path"])
def test_what_the_base_leaves_open_must_be_given(tmp_path: Path, key: str) -> None:
    (tmp_path / "mine.yaml").write_text("defaults: [base, _self_]\nactor_rollout_ref: {rollout: {n: 2}}\n")
    given = {"data.train_files": "[x.jsonl]", "actor_rollout_ref.model.path": "/models/m"}
    overrides = [f"{name}={value}" for name, value in given.items() if not name.endswith(key)]
    with pytest.raises(ValueError, match=rf"{key} is not set; give"):
        build_config("mine", overrides, tmp_path)


# Contradictions


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train", "all"),
        ("team.protocol", "debate"),
        ("team.max_turns", 0),
        ("team.max_turns", 2.5),
        ("team.max_turn_tokens.short", 0),
        ("team.max_turn_tokens.long", None),
        ("team.max_episode_tokens", -1),
        ("team.limit_in_prompt", 0),
        ("team.limit_in_prompt", 1.5),
        ("data.train_batch_size", 0),
        ("data.train_batch_size", "abc"),
        ("data.train_batch_size", True),
        ("data.train_batch_size", 17),
        ("data.max_prompt_length", "abc"),
        ("data.on_error", "ignore"),
        ("data.train_files", None),
        ("data.train_files", []),
        ("reward.format_of", "mine"),
        ("reward.length_of", "turn"),
        ("reward.eta", "abc"),
        ("reward.mu.ramp_steps", -3),
        ("reward.mu.end", "abc"),
        ("reward.max_error_fraction", "abc"),
        ("reward.grading_workers", 0),
        ("algorithm.adv_estimator", "gae"),
        ("algorithm.adv_estimator", "grop"),
        ("algorithm.use_kl_in_reward", True),
        ("algorithm.rollout_correction.loss_type", "ppo"),
        ("algorithm.adv_estimator", "reinforce_plus_plus_baseline"),
        ("evaluation.samples", 0),
        ("placement.mode", "shared"),
        ("placement.n_gpus_per_node.long", 0),
        ("placement.n_gpus_per_node.long", 3),
        ("trainer.device", "xpu"),
        ("trainer.nnodes", 0),
        ("trainer.resume_mode", "always"),
        ("trainer.total_training_steps", 0),
        ("trainer.max_actor_ckpt_to_keep", 0),
        ("policies.long.model.path", ""),
        ("policies.long.rollout.n", "abc"),
        ("policies.long.rollout.max_model_len", 463),
        ("policies.short.rollout.max_model_len", 100),
        ("policies.short.rollout.enable_chunked_prefill", True),
        ("policies.short.actor.ppo_mini_batch_size", 0),
        ("policies.short.actor.ppo_mini_batch_size", 5),
        ("policies.short.actor.ppo_mini_batch_size", 32),
        ("policies.short.actor.ulysses_sequence_parallel_size", 2),
        ("policies.long.actor.ppo_max_token_len_per_gpu", 100),
        ("policies.long.rollout.log_prob_max_token_len_per_gpu", 100),
        ("policies.long.rollout.log_prob_use_dynamic_bsz", False),
        ("placement.n_gpus_per_node", 3),
    ],
)
def test_a_bad_value_is_named_with_its_key_and_a_remedy_in_one_sentence(
    shared: DictConfig, key: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise an estimator's name may be the user's own.
    monkeypatch.delenv("VERL_USE_EXTERNAL_MODULES", raising=False)
    good = OmegaConf.select(shared, key)
    OmegaConf.update(shared, key, value, merge=False)
    try:
        with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
            validate(shared)
    finally:
        # Copying the whole configuration for every case would take most of the time.
        OmegaConf.update(shared, key, good, merge=False)
    message = str(caught.value)
    assert key in message
    assert str(value).lower() in message.lower() or "is not set" in message
    assert any(remedy in message for remedy in ("choose", "must be", "give", "change either", "set it", "raise it"))


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (
            ["actor.use_dynamic_bsz=false", "rollout.log_prob_use_dynamic_bsz=false"],
            r"policies\.long\.actor\.ppo_micro_batch_size_per_gpu is not set; give it",
        ),
        (["model.lora_adapter_path=/a"], r"lora_adapter_path=/a needs policies\.long\.model\.lora_rank"),
        (["model.lora_rank=8", "rollout.load_format=dummy"], r"load_format=dummy.*set it to auto"),
    ],
)
def test_settings_that_contradict_each_other(overrides: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        build_config("local", [f"policies.long.{override}" for override in overrides])


def test_a_frozen_policy_has_no_adapter() -> None:
    adapter = ["policies.short.model.lora_rank=8", "policies.short.model.lora_adapter_path=/a"]
    build_config("local", adapter)
    with pytest.raises(ValueError, match=r"policies\.short\.model\.lora_adapter_path=/a would not be played"):
        build_config("local", [*adapter, "train=long"])


def test_colocated_engines_share_the_memory_of_a_gpu() -> None:
    colocated = ["trainer.device=cuda", "placement.mode=colocated", "data.train_batch_size=16"]
    build_config("local", [*colocated, "actor_rollout_ref.rollout.gpu_memory_utilization=0.45"])
    with pytest.raises(ValueError, match=r"gpu_memory_utilization=.*leave nothing of the GPU"):
        build_config("local", [*colocated, "policies.long.rollout.gpu_memory_utilization=0.5"])


def test_sequences_are_split_only_where_they_are_packed(local: DictConfig) -> None:
    local.placement.n_gpus_per_node.long = 2
    local.policies.long.actor.ulysses_sequence_parallel_size = 2
    with pytest.raises(ValueError, match=r"set it to 1 or policies\.long\.model\.use_remove_padding=true"):
        validate(local)
    local.policies.long.model.use_remove_padding = True
    validate(local)


def test_groups_of_one_are_refused(local: DictConfig) -> None:
    for name in POLICIES:
        local.policies[name].rollout.n = 1
    with pytest.raises(ValueError, match=r"policies\.long\.rollout\.n=1 makes groups of one.*at least 2"):
        validate(local)


def test_policies_that_play_together_have_groups_of_one_size(local: DictConfig) -> None:
    local.policies.short.rollout.n = 4
    with pytest.raises(ValueError, match=r"rollout\.n=8 differs between policies"):
        validate(local)


def test_evaluations_need_problems(local: DictConfig) -> None:
    local.data.val_files = []
    validate(local)
    for key, value in (("test_freq", 5), ("val_before_train", True)):
        changed = deepcopy(local)
        changed.trainer[key] = value
        with pytest.raises(ValueError, match=rf"{key}={value}.*data\.val_files is empty"):
            validate(changed)


def test_colocated_policies_share_the_same_slots(local: DictConfig) -> None:
    local.placement.mode = "colocated"
    validate(local)
    local.placement.n_gpus_per_node.long = 2
    with pytest.raises(ValueError, match=r"placement\.n_gpus_per_node=.*'long': 2.*placement\.mode=split"):
        validate(local)


def test_engines_must_divide_their_device_slots(local: DictConfig) -> None:
    local.policies.long.rollout.tensor_model_parallel_size = 2
    with pytest.raises(ValueError, match=r"long\.rollout: .*tensor_model_parallel_size.* = 2 does not divide"):
        validate(local)
    local.placement.n_gpus_per_node.long = 4
    validate(local)


def test_chunked_prefill_is_refused_on_cpu_only(local: DictConfig) -> None:
    local.policies.long.rollout.enable_chunked_prefill = True
    with pytest.raises(ValueError, match=r"enable_chunked_prefill=true .* trainer\.device=cpu; set it to false"):
        validate(local)
    local.trainer.device = "cuda"
    validate(local)


def test_a_context_may_be_left_to_the_model_or_hold_just_enough(local: DictConfig) -> None:
    for length in (None, local.data.max_prompt_length + local.team.max_episode_tokens):
        local.policies.long.rollout.max_model_len = length
        validate(local)


def test_policies_must_be_the_roles_of_the_protocol(local: DictConfig) -> None:
    OmegaConf.set_struct(local, False)
    del local.policies["short"]
    with pytest.raises(ValueError, match=r"policies=\['long'\] are not the roles of team\.protocol=long_short"):
        validate(local)


def test_the_recipe_in_the_readme_builds_as_it_stands(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (recipe,) = [block for block in blocks if "policies:" in block]
    (tmp_path / "mine.yaml").write_text(recipe)
    config = build_config("mine", ["train=long", "policies.long.actor.optim.lr=5e-6"], tmp_path)
    assert config.policies.long.actor.optim.lr == 5e-6


def test_an_unknown_key_in_a_recipe_file_is_named(tmp_path: Path) -> None:
    recipe = "defaults: [local, _self_]\nreward: {mu: {star: 1}}\n"
    (tmp_path / "mine.yaml").write_text(recipe)
    with pytest.raises(ValueError, match=r"reward\.mu\.star, which is unknown"):
        build_config("mine", folder=tmp_path)


def test_a_recipe_file_may_set_what_a_length_reward_takes_beside_its_name(tmp_path: Path) -> None:
    recipe = "defaults: [local, _self_]\nreward: {length: {name: laser, target: 200}}\n"
    (tmp_path / "mine.yaml").write_text(recipe)
    assert build_config("mine", folder=tmp_path).reward.length.target == 200
    (tmp_path / "mine.yaml").write_text(recipe.replace("target", "targit"))
    with pytest.raises(ValueError, match="targit"):
        build_config("mine", folder=tmp_path)
