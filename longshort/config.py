"""Recipes: one YAML a reader understands, composed with verl's own groups, one complete set per policy.

verl's groups refer to each other by absolute names (``${oc.select:actor_rollout_ref.rollout.n}``), which would fall
back silently under any other name. So each policy is composed and resolved in a root of its own under the name
``actor_rollout_ref`` and only then stored as ``policies.<name>``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from longshort.protocols import TRAINABLE, roles_of
from longshort.rounds.schedule import refuse_fixed_keys, settings_of_round

PACKAGE = Path(__file__).parent
SHARED_ROOT = "actor_rollout_ref"
# What is composed from verl's groups, each member in a root of its own; a model may be an endpoint instead.
GROUPS = ("policies", "models")
ENDPOINT = "endpoint"
BYPASS = "bypass_mode"
# Mappings whose further keys depend on a name in them, so base.yaml cannot list them; who reads them checks them.
OPEN = ("reward.length",)


def config_dir() -> Path:
    """Folder of the shipped recipes: beside the package in a checkout, inside it once installed."""
    for folder in (PACKAGE.parent / "configs", PACKAGE / "configs"):
        if (folder / "base.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no recipes beside {PACKAGE}; reinstall longshort")


def verl_config_dir() -> Path:
    """verl's groups, found without importing verl (which imports torch and ray)."""
    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("verl is not installed; run `make install` or `pip install longshort[cpu]` (or [gpu])")
    return Path(spec.submodule_search_locations[0]) / "trainer" / "config"


def build_config(name: str, overrides: Sequence[str] = (), folder: Path | None = None) -> DictConfig:
    """Compose recipe ``name`` with command-line ``overrides`` (Hydra's syntax) and check it.

    ``actor_rollout_ref.…=`` changes every policy and every model of the cold start, ``policies.<name>.…=`` and
    ``models.<name>.…=`` one; the later layer wins: recipe, recipe's policy, command line, command line's policy, and
    what ``rounds.<name>`` changes for its round.

    Raises:
        ValueError: unknown recipe, key or value, in one sentence.
    """
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise ValueError(f"override {override!r} is not key=value; see `longshort train --help`")
        try:
            OverridesParser.create().parse_override(override)
        except HydraException as error:
            raise ValueError(f"override {override!r} is not Hydra's syntax; try to quote its value") from error
    composed = [o for o in overrides if _is_composed(o)]
    plain = [o for o in overrides if o not in composed]
    try:
        _check_keys(name, folder or config_dir())
        raw = _compose(name, plain, folder or config_dir())
        _add_models(raw, composed)
        _keep_roles(raw)
        _refuse_unknown_names(raw, composed)
        config = _resolved(raw, composed)
        config.rounds = {str(name): _round(raw, str(name), composed) for name in raw.rounds}
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    OmegaConf.set_struct(config, True)
    from longshort.validation import validate

    validate(config)
    return config


def _resolved(raw: DictConfig, composed: Sequence[str], part: DictConfig | None = None) -> DictConfig:
    """The complete configuration, every policy and model in a root of its own; ``part``: what a round changes."""
    config = deepcopy(raw)
    groups = GROUPS if part is None else ("policies",)
    roots = {
        group: {
            name: member if ENDPOINT in member else _policy_root(config, group, name, composed, part)
            for name, member in config[group].items()
        }
        for group in groups
    }
    OmegaConf.set_struct(config, False)
    for group in groups:
        config[group] = roots[group]
    config.rounds = {}
    del config[SHARED_ROOT]
    OmegaConf.resolve(config)
    return config


def _round(raw: DictConfig, name: str, composed: Sequence[str]) -> DictConfig:
    """What holds in a round: those settings of the recipe that a round may change, with the round's own on top."""
    part = raw.rounds[name]
    if not isinstance(part, DictConfig):
        raise ValueError(f"rounds.{name}={part} is no mapping; give what the round changes of the recipe, or {{}}")
    refuse_fixed_keys(name, part)
    changed = deepcopy(raw)
    try:
        changed.merge_with({key: part._get_node(key) for key in part if key not in (SHARED_ROOT, *GROUPS)})
        return settings_of_round(_resolved(changed, composed, part))
    except OmegaConfBaseException as error:
        raise ValueError(f"rounds.{name}: {' '.join(str(error).split())}") from error


def _compose(name: str, overrides: list[str], folder: Path) -> DictConfig:
    if not (folder / f"{name}.yaml").is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml") if p.stem not in {"base", "verl"}))
        raise ValueError(f"no recipe {name!r} in {folder}; there are: {known}")
    GlobalHydra.instance().clear()
    search = f"hydra.searchpath=['file://{config_dir()}','file://{verl_config_dir()}']"
    with initialize_config_dir(str(folder.resolve()), version_base=None):
        return compose(name, overrides=[*overrides, search])


def _check_keys(name: str, folder: Path) -> None:
    file = folder / f"{name}.yaml"
    _check_keys_once(name, folder, file.stat().st_mtime_ns if file.is_file() else 0)


@lru_cache
def _check_keys_once(name: str, folder: Path, changed: int) -> None:
    """Whoever builds a recipe again, with other overrides, need not compose it two times more."""
    _refuse_unknown_keys(_compose(name, [], folder), _compose("base", [], config_dir()), name)


def _refuse_unknown_keys(config: DictConfig, base: DictConfig, name: str, path: str = "") -> None:
    """Every key of ours is in base.yaml; verl's own are checked by verl."""
    # A key whose value is still missing (???) is not "in" a DictConfig, but is listed.
    known = list(map(str, base))
    for key in map(str, config):
        if path == "" and key in (SHARED_ROOT, *GROUPS):
            continue
        if key not in known:
            raise ValueError(f"recipe {name!r} sets {path}{key}, which is unknown; there are: {', '.join(known)}")
        child, base_child = config._get_node(key), base._get_node(key)
        # An empty mapping is for the user to fill.
        closed = f"{path}{key}" not in OPEN
        if isinstance(child, DictConfig) and isinstance(base_child, DictConfig) and len(base_child) and closed:
            _refuse_unknown_keys(child, base_child, name, f"{path}{key}.")


def _is_composed(override: str) -> bool:
    """Whether ``override`` changes a root, and not a key that Hydra knows."""
    path = _path_of(override)
    return path[0] == SHARED_ROOT or (path[0] in GROUPS and len(path) > 2 and path[2] != ENDPOINT)


def _path_of(override: str) -> list[str]:
    """The parts of an override's key."""
    return override.lstrip("+~").split("=")[0].split(".")


def _keep_roles(config: DictConfig) -> None:
    """Leave out what ``base`` holds for the roles of other protocols."""
    if config.team.protocol not in TRAINABLE:
        return  # named by validation
    for role in (role for protocol in TRAINABLE for role in roles_of(protocol)):
        if role not in roles_of(config.team.protocol):
            for key in ("policies", "team.max_turn_tokens", "placement.n_gpus_per_node", "placement.demand"):
                if isinstance(group := OmegaConf.select(config, key), DictConfig):
                    OmegaConf.set_struct(group, False)
                    group.pop(role, None)
                    OmegaConf.set_struct(group, True)


def _add_models(config: DictConfig, overrides: Sequence[str]) -> None:
    """``+models.<name>.…`` adds a model that the recipe has not."""
    OmegaConf.set_struct(config, False)
    for override in overrides:
        group, name = _path_of(override)[:2]
        if group == "models" and override.startswith("+") and name not in config.models:
            config.models[name] = {}
    OmegaConf.set_struct(config, True)


def _refuse_unknown_names(config: DictConfig, overrides: Sequence[str]) -> None:
    for override in overrides:
        group, name = _path_of(override)[:2]
        if group in GROUPS and name not in config[group]:
            raise ValueError(f"override {override!r} names {group}.{name}; there are {list(config[group])}")


def _policy_root(
    config: DictConfig, group: str, name: str, overrides: Sequence[str], part: DictConfig | None = None
) -> DictConfig:
    root = deepcopy(config)
    OmegaConf.set_struct(root, True)
    root[SHARED_ROOT] = OmegaConf.merge(root[SHARED_ROOT], root[group][name])
    for prefix in (f"{SHARED_ROOT}.", f"{group}.{name}."):
        for override in overrides:
            if override.lstrip("+~").startswith(prefix):
                _apply(root, override, prefix)
    for layer in () if part is None else (part.get(SHARED_ROOT), (part.get(group) or {}).get(name)):
        if layer is not None:
            root[SHARED_ROOT].merge_with(layer)
    root[SHARED_ROOT].model.path = _model_path(root[SHARED_ROOT].model.path)
    _pass_on_bypass(root, f"{group}.{name}")
    resolved = OmegaConf.create(OmegaConf.to_container(root[SHARED_ROOT], resolve=True))
    assert isinstance(resolved, DictConfig)
    return resolved


def _pass_on_bypass(root: DictConfig, member: str) -> None:
    """``algorithm.rollout_correction.bypass_mode`` selects the policy loss of that name, as in verl's trainer."""
    correction, loss = root.algorithm.rollout_correction, root[SHARED_ROOT].actor.policy_loss
    if correction.bypass_mode and loss.loss_mode not in ("vanilla", BYPASS):
        raise ValueError(
            f"{member}.actor.policy_loss.loss_mode={loss.loss_mode} has no effect where "
            "algorithm.rollout_correction.bypass_mode=true; leave one of them out"
        )
    if loss.loss_mode == BYPASS and not correction.bypass_mode:
        raise ValueError(
            f"{member}.actor.policy_loss.loss_mode={BYPASS} is selected by another key: "
            "set algorithm.rollout_correction.bypass_mode=true"
        )
    if correction.bypass_mode:
        loss.loss_mode = BYPASS
        OmegaConf.update(loss, "rollout_correction", correction, force_add=True)


def _apply(root: DictConfig, override: str, prefix: str) -> None:
    parsed = OverridesParser.create().parse_override(override)
    if parsed.is_sweep_override():
        raise ValueError(f"override {override!r} gives several values; give one, or a list in brackets")
    if parsed.is_delete():
        raise ValueError(f"override {override!r} takes away a key that every policy has; give it a value")
    key = f"{SHARED_ROOT}.{parsed.key_or_group.removeprefix(prefix)}"
    value = parsed.value()
    if parsed.is_add() or parsed.is_force_add():
        OmegaConf.update(root, key, value, force_add=True)
    else:
        try:
            OmegaConf.update(root, key, OmegaConf.create(value) if isinstance(value, (dict, list)) else value)
        except (ConfigAttributeError, ConfigKeyError) as error:
            raise ValueError(f"override {override!r} names an unknown key; correct it, or put + before it") from error


def _model_path(path: object) -> str | None:
    """``playground:<name>`` is the shipped tiny model of that name; a number is a folder's name."""
    if path is None:
        return None
    if str(path).startswith("playground:"):
        from longshort.playground import model_path

        return str(model_path(str(path).removeprefix("playground:")))
    return str(path)


def as_list(value: str | Sequence[str] | ListConfig) -> list[str]:
    """``data.train_files`` is one path or a list, as in verl."""
    return [value] if isinstance(value, str) else list(value)
