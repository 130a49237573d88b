"""``longshort evaluate``: play benchmarks with the policies of a recipe, and write down what came of it.

Episodes are written one by one, so an evaluation that was stopped goes on where it was. Engines start when an episode
is missing, so a second one costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
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
from longshort.evaluation.records import SUMMARY, Evaluated, read_summary, sample_id
from longshort.evaluation.variants import Variant, make_variants
from longshort.folders import write_whole
from longshort.generation import Generator, Tokenizer
from longshort.grading_pool import GradingPool
from longshort.lazy_engines import LazyEngines
from longshort.model_folder import context_length, load_tokenizer
from longshort.player import Player
from longshort.protocols import protocol_of
from longshort.run import evaluation_sampling
from longshort.stages import ItemsFailedError, Record, StageResult, run_stage


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
        ValueError: benchmarks or models cannot be read, or the folder holds another evaluation.
        ItemsFailedError: at the end, where samples failed.
    """
    config = _frozen(config)
    folder = Path(config.evaluation.folder)
    data_dir = config.evaluation.data_dir
    benchmarks = find_benchmarks(as_list(config.evaluation.benchmarks), data_dir and Path(data_dir))
    for each in benchmarks:
        if Path(each.path).absolute().parent == folder.absolute():
            raise ValueError(f"evaluation.folder={folder} holds the benchmark {each.path}; choose another folder")
    base = config.evaluation.base and read_summary(Path(config.evaluation.base))
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
        try:
            for variant in variants:
                evaluation = Evaluation(folder / variant.name, variant, model, evaluation_sampling(config), base or {})
                failures += await evaluation.run(playable, grader, display)
        finally:
            lazy.stop()
    if failures:
        raise failures[0]


@dataclass(frozen=True)
class Evaluation:
    """One folder: a model, played in one way.

    Attributes:
        base: summary of the evaluation that AES is measured against, or empty.
    """

    folder: Path
    variant: Variant
    model: Mapping[str, Any]
    sampling: Sampling
    base: Mapping[str, Any]

    async def run(
        self, benchmarks: Sequence[Playable], grader: GradingPool, display: Display
    ) -> list[ItemsFailedError]:
        """Play what is missing; the summary is written anew after each benchmark. Returns what failed."""
        failures = []
        numbers: dict[str, Any] = {}
        if (self.folder / SUMMARY).is_file():
            # Benchmarks of an earlier command stay.
            numbers = dict(read_summary(self.folder)["benchmarks"])
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(numbers)
        for each in benchmarks:
            name = each.benchmark.name
            display.stage(" ".join(filter(None, ("playing", name, self.variant.name))))
            result = await self._play(each, grader, display)
            if result.failed:
                failures.append(ItemsFailedError(name, result.failed))
                continue
            samples = [Evaluated.from_record(record) for record in result.records.values()]
            numbers[name] = benchmark_numbers(samples) | {"left_out": dict(each.left_out)}
            self._write(numbers)
        self._show(numbers, display)
        return failures

    async def _play(self, playable: Playable, grader: GradingPool, display: Display) -> StageResult:
        player = Player(self.variant.controller, grader, playable.rewards)
        items = {
            sample_id(problem.id, sample): (problem, sample)
            for problem in playable.problems
            for sample in range(playable.samples)
        }

        async def work(item: tuple[Problem, int]) -> Record:
            episode, correct = await player.play_one(*item, self.sampling)
            return Evaluated(episode, correct).to_record()

        settings = flat({"model": self.model, **self.variant.settings, "samples": playable.samples})
        settings["problems"] = problems_digest(playable.problems)
        return await run_stage(self.folder, playable.benchmark.name, items, work, settings, display.advance)

    def _write(self, numbers: Mapping[str, Any]) -> None:
        average = average_numbers(list(numbers.values())) if numbers else {}
        found = {name: dict(values) for name, values in numbers.items()}
        if self.base:
            for name, values in found.items():
                if name in self.base["benchmarks"]:
                    values["aes"] = _aes(values, self.base["benchmarks"][name])
            if found.keys() == self.base["benchmarks"].keys():
                average["aes"] = _aes(average, self.base["average"])
        summary = {
            "model": self.model,
            "settings": self.variant.settings,
            "benchmarks": found,
            "average": average,
        }
        write_whole(self.folder / SUMMARY, json.dumps(summary, indent=2) + "\n")

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
        display.table(str(self.folder / SUMMARY), columns, rows)


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


def _aes(numbers: Mapping[str, Any], base: Mapping[str, Any]) -> float | None:
    if not base["pass@1"]:
        return None
    return accuracy_efficiency_score(numbers["pass@1"], numbers["tokens"], base["pass@1"], base["tokens"])
