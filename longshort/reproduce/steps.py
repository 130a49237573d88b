"""Which commands reproduce what: the playground in miniature, Qwen2.5-7B at full size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from longshort.coldstart.pipeline import pair_folder
from longshort.evaluation.baselines import BUDGET_FORCING
from longshort.protocol import LONG_SHORT

ROLES = LONG_SHORT.roles
COLDSTART, EVOLUTION, THINKPRUNE, PAIR, EVALUATION = "coldstart", "evolution", "thinkprune", "pair", "evaluation"
REPORT = "report.html"
# What the cold start's conversations are made by, beside the paper's way: see `coldstart.synthesize` and `.score`.
ABLATIONS = {
    "random_scores": ("coldstart.synthesize.rule=random",),
    "no_decay": ("coldstart.score.decay=0.0",),
    "top_k": ("coldstart.synthesize.rule=top_k",),
    "threshold": ("coldstart.synthesize.rule=threshold",),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One command.

    Attributes:
        name: what it does.
        arguments: behind ``longshort``.
        seconds: what it takes on 2 cores, about; 0 where that is not known.
        scored: folder of a cold start whose chains, thoughts and rollouts it begins with, and its own; None without.
    """

    name: str
    arguments: tuple[str, ...]
    seconds: float = 0.0
    scored: tuple[Path, Path] | None = None


@dataclass(frozen=True, slots=True)
class Size:
    """How large the playground's reproduction is: seconds and overrides of each part, and the ablations it has."""

    seconds: Mapping[str, float]
    coldstart: tuple[str, ...] = ()
    evolution: tuple[str, ...] = ()
    thinkprune: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()
    ablations: tuple[str, ...] = tuple(ABLATIONS)


FULL = Size(seconds={COLDSTART: 1040, "ablation": 600, EVOLUTION: 680, THINKPRUNE: 450, EVALUATION: 95})
QUICK = Size(
    seconds={COLDSTART: 350, "ablation": 160, EVOLUTION: 420, THINKPRUNE: 290, EVALUATION: 60},
    coldstart=("data.train_files=['playground:train:600:7']",),
    evolution=(
        "trainer.total_training_steps=8",
        "rounds.long-r1.trainer.total_training_steps=24",
        "rounds.short-r1.trainer.total_training_steps=40",
        "rounds.short-r2.trainer.total_training_steps=20",
    ),
    thinkprune=("trainer.total_training_steps=12", "trainer.test_freq=6", "trainer.save_freq=6"),
    evaluate=("evaluation.samples=1",),
    ablations=("random_scores",),
)


def playground_steps(root: Path, quick: bool = False) -> list[Step]:
    """Everything on the playground, into folders below ``root``, in an order in which each finds what it needs."""
    size = QUICK if quick else FULL
    cold, evolution = root / COLDSTART, root / EVOLUTION
    took = size.seconds
    steps = [Step("cold start", ("coldstart", f"coldstart.folder={cold}", *size.coldstart), took[COLDSTART])]
    for name in size.ablations:
        own = root / name
        command = ("coldstart", f"coldstart.folder={own}", *size.coldstart, *ABLATIONS[name])
        steps.append(Step(f"cold start, {name}", command, took["ablation"], scored=(cold, own)))
    folder = "trainer.default_local_dir"
    evolve = ("--config-name", "evolution_playground", *_pair(cold), f"{folder}={evolution}", *size.evolution)
    prune = ("--config-name", "thinkprune_playground", f"{folder}={root / THINKPRUNE}", *size.thinkprune)
    steps += [
        Step("evolution", ("train", *evolve), took[EVOLUTION]),
        Step("export the pair", ("export", str(evolution), str(root / PAIR)), 10),
        Step("ThinkPrune", ("train", *prune), took[THINKPRUNE]),
    ]
    played = {
        "reasoner": ("baseline_plain_playground", ()),
        "base": ("baseline_plain_playground", ("policies.solo.model.path=playground:base",)),
        "prompting": ("baseline_prompting_playground", ()),
        "r0": ("evaluate_playground", _pair(cold)),
        **{name: ("evaluate_playground", _pair(root / name)) for name in size.ablations},
        "pair": ("evaluate_playground", [f"policies.{role}.model.path={root / PAIR / role}" for role in ROLES]),
        "first_thought": ("baseline_first_thought_playground", ()),
        BUDGET_FORCING: ("baseline_budget_forcing_playground", ()),
    }
    for name, (recipe, settings) in played.items():
        played_in = f"evaluation.folder={root / EVALUATION / name}"
        command = ("evaluate", "--config-name", recipe, *settings, played_in, *size.evaluate)
        steps.append(Step(f"evaluate {name}", command, took[EVALUATION]))
    return steps


QWEN_HARDWARE = (
    "8 GPUs of 80 GB: the cold start with Qwen2.5-72B-Instruct in engines of 4 GPUs, then 4 GPUs a policy. The paper "
    "names 24 hours a round on 8 A100."
)
QWEN_GPUS = 8
QWEN_BASE = ("policies.solo.model.path=Qwen/Qwen2.5-7B-Instruct", "team.family=qwen")
QWEN_BUDGETS = (500, 1000, 2000, 4000, 8000)


def qwen_steps(root: Path) -> list[Step]:
    """Long⊗Short on Qwen2.5-7B, as far as the paper says how; without ThinkPrune."""
    cold, random, evolution = root / COLDSTART, root / "random_scores", root / EVOLUTION
    final = [f"policies.{role}.model.path={root / PAIR / role}" for role in ROLES]
    played: dict[str, tuple[str, Sequence[str]]] = {
        "reasoner": ("baseline_plain_qwen2.5_7b", ()),
        "base": ("baseline_plain_qwen2.5_7b", QWEN_BASE),
        "r0": ("evaluate_qwen2.5_7b", _pair(cold)),
        "random_scores": ("evaluate_qwen2.5_7b", _pair(random)),
        "pair": ("evaluate_qwen2.5_7b", final),
        **{
            name: (f"baseline_{name}_qwen2.5_7b", ())
            for name in ("chain_of_draft", "tale_ep", "prompting", "first_thought")
        },
        BUDGET_FORCING: (
            "baseline_budget_forcing_qwen2.5_7b",
            (f"evaluation.baseline.budgets=[{','.join(map(str, QWEN_BUDGETS))}]",),
        ),
    }
    folders = {name: root / EVALUATION / name for name in played}
    shown = [folder for name, folder in folders.items() if name != BUDGET_FORCING]
    shown += [folders[BUDGET_FORCING] / f"budget-{budget}" for budget in QWEN_BUDGETS]
    return [
        Step("problems of the cold start", ("data", "openmathinstruct", "--limit", "1800")),
        Step("cold start", ("coldstart", "--config-name", "coldstart_qwen2.5_7b", f"coldstart.folder={cold}")),
        Step(
            "cold start, random_scores",
            ("coldstart", "--config-name", "baseline_random_scores_qwen2.5_7b", f"coldstart.folder={random}"),
            scored=(cold, random),
        ),
        Step(
            "evolution",
            ("train", "--config-name", "evolution_qwen2.5_7b", *_pair(cold), f"trainer.default_local_dir={evolution}"),
        ),
        Step("export the pair", ("export", str(evolution), str(root / PAIR))),
        *[
            Step(
                f"evaluate {name}",
                ("evaluate", "--config-name", recipe, *settings, f"evaluation.folder={folders[name]}"),
            )
            for name, (recipe, settings) in played.items()
        ],
        Step("compare reasoner and pair", ("compare", str(folders["reasoner"]), str(folders["pair"]))),
        Step("report", ("report", *map(str, (cold, evolution, *shown)), "--out", str(root / REPORT))),
    ]


def _pair(folder: Path) -> tuple[str, ...]:
    """Overrides for the two models that a cold start made."""
    return tuple(f"policies.{role}.model.path={pair_folder(folder, role)}" for role in ROLES)
