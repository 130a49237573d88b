"""``longshort evaluate``: play benchmarks with the policies of a recipe, and write down what came of it.

Episodes are written one by one, so an evaluation that was stopped goes on where it was. Engines start when an episode
is missing, so a second one costs nothing.

Concurrency: whoever plays a benchmark or writes the summary holds the folder, and writes into the summary as it is on
disk then, so that two evaluations of one folder keep each other's numbers. Nobody waits: a held folder is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from omegaconf import DictConfig

from longshort.assembly import make_limits, make_members
from longshort.config import as_list
from longshort.controller import Sampling
from longshort.custom_reward import CustomRewards, custom_rewards
from longshort.demand import settle_placement
from longshort.display import Display
from longshort.episode import Problem
from longshort.evaluation.benchmarks import Benchmark, find_benchmarks, load_benchmark
from longshort.evaluation.choices import ChoiceGrader
from longshort.evaluation.identity import flat, model_facts, problems_digest, refuse_others
from longshort.evaluation.metrics import accuracy_efficiency_score
from longshort.evaluation.numbers import average_numbers, benchmark_numbers
from longshort.evaluation.records import SUMMARY, Base, Evaluated, read_summary, sample_id, stage_settings
from longshort.evaluation.variants import Variant, make_variants
from longshort.folders import sole_use_of, write_whole
from longshort.generation import Generator, Tokenizer
from longshort.grading_pool import GradingPool
from longshort.lazy_engines import LazyEngines
from longshort.model_folder import context_length, load_tokenizer
from longshort.player import Player
from longshort.protocols import protocol_of
from longshort.run import evaluation_sampling
from longshort.stages import ItemsFailedError, Record, open_stage


@dataclass(frozen=True, slots=True)
class Playable:
    """A benchmark with the problems that can be graded, and the samples of each.

    ``left_out`` counts the rows that are no problems and the gold answers that cannot be graded.
    """

    benchmark: Benchmark
    problems: tuple[Problem, ...]
    samples: int
    rewards: CustomRewards
    left_out: Mapping[str, int]


class Engines(Protocol):
    """What starts the policies of a recipe."""

    async def start(
        self, config: DictConfig, tokenizers: Mapping[str, Tokenizer], display: Display
    ) -> Mapping[str, Generator]: ...

    def stop(self) -> None: ...


async def evaluate(config: DictConfig, display: Display, engines: Engines | None = None) -> None:
    """Play every benchmark of ``evaluation.benchmarks`` and write ``summary.json``.

    ``engines``: by default vLLM's on Ray.

    Raises:
        ValueError: benchmarks or models cannot be read, the folder holds another evaluation or is in use, or
            ``evaluation.base`` is not comparable.
        ItemsFailedError: at the end, where samples failed.
    """
    config = _frozen(config)
    folder = Path(config.evaluation.folder)
    data_dir = config.evaluation.data_dir
    benchmarks = find_benchmarks(as_list(config.evaluation.benchmarks), data_dir and Path(data_dir))
    for each in benchmarks:
        if Path(each.path).absolute().parent == folder.absolute():
            raise ValueError(f"evaluation.folder={folder} holds the benchmark {each.path}; choose another folder")
    base = Base.read(Path(config.evaluation.base)) if config.evaluation.base else None
    display.stage("loading benchmarks and tokenizers")
    protocol = protocol_of(config.team)
    tokenizers = {str(name): load_tokenizer(policy, str(name), protocol) for name, policy in config.policies.items()}
    contexts = {name: context_length(config, name) for name in tokenizers}
    model = model_facts(config)
    engines = engines or TeamEngines()
    lazy = LazyEngines(partial(engines.start, config, tokenizers, display), engines.stop)
    failures: list[ItemsFailedError] = []
    with GradingPool(config.reward.grading_workers, config.reward.grading_timeout_s) as grader:
        generators = {name: lazy[name] for name in tokenizers}
        variants = make_variants(config, make_members(config, generators, tokenizers, contexts), make_limits(config))
        for variant in variants:
            refuse_others(folder / variant.name, model, variant.settings)
        rewards = custom_rewards(config)
        playable = [_playable(config, each, grader, rewards) for each in benchmarks]
        for variant in variants:
            _refuse_long_prompts(config, variant, playable)
        sampling = evaluation_sampling(config)
        evaluations = [Evaluation(folder / variant.name, variant, model, sampling, base) for variant in variants]
        for evaluation in evaluations:
            evaluation.refuse_other_base(playable)
        try:
            for evaluation in evaluations:
                failures += await evaluation.run(playable, grader, display)
        finally:
            lazy.stop()
    if failures:
        raise failures[0]


@dataclass(frozen=True)
class Evaluation:
    """One folder: a model, played in one way.

    Attributes:
        base: what AES is measured against, if anything.
    """

    folder: Path
    variant: Variant
    model: Mapping[str, Any]
    sampling: Sampling
    base: Base | None

    def refuse_other_base(self, benchmarks: Sequence[Playable]) -> None:
        """ValueError where the base played one of these benchmarks, or of those in the folder, otherwise."""
        if self.base is None:
            return
        earlier = {name: stage_settings(self.folder, name) for name in self._numbers() if name in self.base.benchmarks}
        for name, settings in (earlier | {each.benchmark.name: self._settings(each) for each in benchmarks}).items():
            self.base.refuse_others(name, settings)

    async def run(
        self, benchmarks: Sequence[Playable], grader: GradingPool, display: Display
    ) -> list[ItemsFailedError]:
        """Play what is missing; the summary is written anew after each benchmark. Returns what failed."""
        failures = []
        with sole_use_of(self.folder):
            summary = self._write({})
        for each in benchmarks:
            name = each.benchmark.name
            display.stage(" ".join(filter(None, ("playing", name, self.variant.name))))
            with open_stage(self.folder, name, self._settings(each)) as stage:
                items = {
                    sample_id(problem.id, sample): (problem, sample)
                    for problem in each.problems
                    for sample in range(each.samples)
                }
                player = Player(self.variant.controller, grader, each.rewards)
                await stage.run(items, partial(self._play, player), display.advance)
                result = stage.finish(items)
                if result.failed:
                    failures.append(ItemsFailedError(name, result.failed))
                    continue
                samples = [Evaluated.from_record(record) for record in result.records.values()]
                summary = self._write({name: benchmark_numbers(samples) | {"left_out": dict(each.left_out)}})
        self._show(summary["benchmarks"], display)
        return failures

    async def _play(self, player: Player, item: tuple[Problem, int]) -> Record:
        episode, correct = await player.play_one(*item, self.sampling)
        return Evaluated(episode, correct).to_record()

    def _settings(self, playable: Playable) -> dict[str, Any]:
        settings = flat({"model": self.model, **self.variant.settings, "samples": playable.samples})
        return settings | {"problems": problems_digest(playable.problems)}

    def _numbers(self) -> dict[str, dict[str, Any]]:
        """Those of earlier commands, without the AES, whose base may have been another."""
        if not (self.folder / SUMMARY).is_file():
            return {}
        earlier = read_summary(self.folder)["benchmarks"]
        return {name: {key: each[key] for key in each if key != "aes"} for name, each in earlier.items()}

    def _write(self, played: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Numbers of ``played`` into the summary on disk; the caller holds the folder."""
        refuse_others(self.folder, self.model, self.variant.settings)
        numbers = self._numbers() | {name: dict(each) for name, each in played.items()}
        average = average_numbers(list(numbers.values())) if numbers else {}
        if self.base:
            for name in numbers.keys() & self.base.benchmarks.keys():
                self.base.refuse_others(name, stage_settings(self.folder, name))
                numbers[name]["aes"] = _aes([numbers[name]], [self.base.benchmarks[name]])
            if numbers and numbers.keys() == self.base.benchmarks.keys():
                average["aes"] = _aes(list(numbers.values()), list(self.base.benchmarks.values()))
        summary = {
            "model": self.model,
            "settings": self.variant.settings,
            "base": str(self.base.folder) if self.base else None,
            "benchmarks": numbers,
            "average": average,
        }
        write_whole(self.folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
        return summary

    def _show(self, numbers: Mapping[str, Any], display: Display) -> None:
        rows = [
            (
                name,
                each["problems"],
                each["samples"],
                f"{each['pass@1']:.1%}",
                "" if each["interval"] is None else "{:.1%} to {:.1%}".format(*each["interval"]),
                f"{each['tokens']:.0f}",
                f"{each['turns']['mean']:.2f}",
                f"{each['truncated']:.1%}",
            )
            for name, each in numbers.items()
        ]
        columns = ("benchmark", "problems", "samples", "pass@1", "95% interval", "tokens", "turns", "truncated")
        title = str(self.folder / SUMMARY)
        if self.base and numbers.keys() != self.base.benchmarks.keys():
            others = ", ".join(self.base.benchmarks) or "nothing"
            title += f"\nThe average has no AES, since its base {self.base.folder} played {others}"
        display.table(title, columns, rows)


class TeamEngines:
    """The policies of a recipe as engines on Ray."""

    async def start(
        self, config: DictConfig, tokenizers: Mapping[str, Tokenizer], display: Display
    ) -> Mapping[str, Generator]:
        """Generators by policy."""
        from workers import team

        team.configure_environment(config.trainer.device)
        settle_placement(config)
        display.stage("starting Ray")
        team.start_ray(config)
        policies = await team.start_policies(config, (), dict(tokenizers), display.stage)
        display.stage("playing")
        return {name: policy.generator for name, policy in policies.items()}

    def stop(self) -> None:
        """Take them down."""
        from workers import team

        team.stop()


def _frozen(config: DictConfig) -> DictConfig:
    """The recipe with nobody who learns."""
    frozen = deepcopy(config)
    frozen.train, frozen.rounds = "none", {}
    return frozen


def _playable(config: DictConfig, benchmark: Benchmark, grader: GradingPool, rewards: CustomRewards) -> Playable:
    loaded = load_benchmark(benchmark, config.seed, config.data.on_error)
    choices = {key: ChoiceGrader(choice, grader) for key, choice in loaded.choices.items()}
    rewards = replace(rewards, by_id=choices)
    by_mathematics = [problem for problem in loaded.problems if rewards.of(problem) is None]
    gradable = grader.gradable_many([problem.answer for problem in by_mathematics])
    ungradable = {problem.id for problem, good in zip(by_mathematics, gradable, strict=True) if not good}
    problems = tuple(problem for problem in loaded.problems if problem.id not in ungradable)
    if not problems:
        raise ValueError(f"{benchmark.path} has no gold answer that can be graded; correct its answers")
    left_out = {"unreadable": loaded.unreadable, "ungradable": len(ungradable)}
    return Playable(benchmark, problems, config.evaluation.samples or benchmark.samples, rewards, left_out)


def _refuse_long_prompts(config: DictConfig, variant: Variant, benchmarks: Sequence[Playable]) -> None:
    """A benchmark without its longest problems would be another one."""
    limit, controller = config.data.max_prompt_length, variant.controller
    for each in benchmarks:
        lengths = {
            problem.id: max(len(controller.prompt(role, problem.question)) for role in controller.protocol.roles)
            for problem in each.problems
        }
        longest = max(lengths, key=lengths.__getitem__)
        if lengths[longest] > limit:
            over = sum(length > limit for length in lengths.values())
            raise ValueError(
                f"{over} prompts of {each.benchmark.name} are longer than data.max_prompt_length={limit}, that of "
                f"{longest} has {lengths[longest]} tokens; raise it"
            )


def _aes(numbers: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]) -> float | None:
    """Of mean accuracy and mean length over the same benchmarks; None where the base has nothing to divide by."""
    accuracy, length, base_accuracy, base_length = (
        fmean(each[key] for each in benchmarks) for benchmarks in (numbers, base) for key in ("pass@1", "tokens")
    )
    if not base_accuracy or not base_length:
        return None
    return accuracy_efficiency_score(accuracy, length, base_accuracy, base_length)
