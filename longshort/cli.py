"""The command line: ``longshort <command>``; without arguments a command runs on the playground."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig

from longshort.checkpoints import DamagedCheckpointError, SaveFailedError
from longshort.config import build_config, config_dir
from longshort.display import Display
from longshort.hiding import HidingFilter, as_yaml, hide
from longshort.reproduce.errors import StepFailedError
from longshort.sources import SOURCES
from longshort.stages import ItemsFailedError
from longshort.stopping import StoppedEarlyError, StopRequest
from longshort.trainer import NonFiniteUpdateError, RewardFailureError
from workers.errors import PolicyFailedError


class UnfitError(RuntimeError):
    """A check of the doctor failed."""


# Not a user's mistake; one sentence says what it was.
FAILURES = (
    *(PolicyFailedError, RewardFailureError, NonFiniteUpdateError),
    *(ItemsFailedError, SaveFailedError, DamagedCheckpointError, UnfitError, StepFailedError),
)
TERMINATED = "SIGTERM"
# sysexits.h: try again later.
STOPPED_EARLY = 75
COLDSTART = "coldstart_playground"
PLAYGROUND = "playground"
EVALUATE = "evaluate_playground"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; user errors are one sentence on standard error and exit code 2."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if unknown := [argument for argument in rest if argument.startswith("-")]:
        parser.error(f"unknown option {unknown[0]}")
    if "overrides" in options:
        # Overrides and options may stand in any order, which argparse does not do below subcommands.
        options.overrides += rest
    elif rest:
        parser.error(f"unknown argument {rest[0]}")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(HidingFilter())
    try:
        options.run(options)
    except ValueError as error:
        sys.stderr.write(hide(f"longshort: {error}\n"))
        return 2
    except FAILURES as error:
        sys.stderr.write(hide("\n".join([f"longshort: {error}", *getattr(error, "__notes__", [])]) + "\n"))
        return 1
    except StoppedEarlyError as error:
        sys.stderr.write(f"longshort: {error}\n")
        return STOPPED_EARLY
    except KeyboardInterrupt:
        sys.stderr.write("longshort: interrupted\n")
        return 130
    except asyncio.CancelledError:
        sys.stderr.write("longshort: terminated\n")
        return 143
    return 0


def _run_recipe(options: argparse.Namespace) -> None:
    config = build_config(options.config_name, options.overrides, options.config_dir)
    if options.print_config:
        sys.stdout.write(as_yaml(config))
    else:
        asyncio.run(_until_terminated(options.play(config)))


async def _until_terminated(play: Awaitable[None]) -> None:
    """SIGTERM ends a run as an interrupt does: workers and engines are taken down."""
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel, TERMINATED)
    await play


async def _train(config: DictConfig) -> None:
    from longshort.assembly import open_run
    from longshort.rounds.reasoner import measure_reasoner

    stop = StopRequest()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, stop.make)
    with Display() as display:
        await measure_reasoner(config, display)
        async with open_run(config, display, stop) as run:
            await run.fit()


async def _sft(config: DictConfig) -> None:
    from longshort.sft import sft

    with Display() as display:
        await sft(config, display)


def _stage(name: str) -> Callable[[DictConfig], Awaitable[None]]:
    async def run(config: DictConfig) -> None:
        from longshort.coldstart.pipeline import run_stages

        with Display() as display:
            await run_stages(config, display, (name,))

    return run


async def _coldstart(config: DictConfig) -> None:
    from longshort.coldstart.pipeline import coldstart

    with Display() as display:
        await coldstart(config, display)


async def _demo(config: DictConfig) -> None:
    from longshort.demo import demo

    await demo(config)


async def _evaluate(config: DictConfig) -> None:
    from longshort.evaluation.evaluate import evaluate

    with Display() as display:
        await evaluate(config, display)


async def _behaviour(config: DictConfig) -> None:
    from longshort.evaluation.behaviour.run import behaviour

    with Display() as display:
        await behaviour(config, display)


def _doctor(options: argparse.Namespace) -> None:
    from longshort.doctor.doctor import doctor

    config = build_config(options.config_name, options.overrides, options.config_dir)
    with Display() as display:
        healthy = doctor(config, display, options.gpu_memory)
    if not healthy:
        raise UnfitError("something failed; the table says what to do about it")


def _status(options: argparse.Namespace) -> None:
    from longshort.status import show_status

    with Display() as display:
        show_status(options.folder, display)


def _compare(options: argparse.Namespace) -> None:
    from longshort.evaluation.comparison import show_comparison

    with Display() as display:
        show_comparison(options.a, options.b, display)


def _report(options: argparse.Namespace) -> None:
    from longshort.report.report import report

    with Display() as display:
        report(options.folders, options.out, display)


def _reproduce(options: argparse.Namespace) -> None:
    from longshort.reproduce.run import reproduce_playground, reproduce_qwen

    root = options.out or Path("outputs") / f"reproduce_{options.name}"
    with Display() as display:
        if options.name == PLAYGROUND:
            reproduce_playground(root, options.quick, display)
        else:
            reproduce_qwen(root, display)


def _prepare(options: argparse.Namespace) -> None:
    from longshort.prepare import prepare

    with Display() as display:
        prepare(
            options.name,
            display,
            path=options.source,
            folder=options.out,
            limit=options.limit,
            seed=options.seed,
            validation=options.validation,
            drop_overlap=options.drop_overlap,
        )


def _export(options: argparse.Namespace) -> None:
    from longshort.export import export

    with Display() as display:
        export(options.run_folder, options.out, display, options.step)


def _serve(options: argparse.Namespace) -> None:
    import uvloop

    from longshort.serving.open import serve
    from longshort.serving.settings import read_settings

    spec, overrides = _pair_and_overrides(options.pair + options.overrides)
    # Half of what a server does for a token is done by its event loop.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(spec, read_settings(overrides)))


def _chat(options: argparse.Namespace) -> None:
    from longshort.serving.chat import chat
    from longshort.serving.settings import read_settings

    spec, overrides = _pair_and_overrides(options.pair + options.overrides)
    asyncio.run(_until_terminated(chat(spec, read_settings(overrides))))


def _pair_and_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What names a pair, and ``key=value``."""
    overrides = [each for each in arguments if "=" in each]
    return [each for each in arguments if each not in overrides], overrides


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="longshort", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    names = ", ".join(sorted(p.stem for p in config_dir().glob("*.yaml") if p.stem not in {"base", "verl"}))
    for command, recipe, play, text in (
        ("train", "local", _train, "train the policies of a recipe"),
        ("demo", "demo", _demo, "train the playground pair and compare it with itself before"),
        ("distill", COLDSTART, _stage("distill"), "let a reasoning model think about problems"),
        ("chunk", COLDSTART, _stage("chunk"), "divide its chains into thoughts"),
        ("score", COLDSTART, _stage("score"), "score the thoughts by rollouts of a base model"),
        ("synthesize", COLDSTART, _stage("synthesize"), "make conversations of the scored thoughts"),
        ("sft", "sft_playground", _sft, "fine-tune policies on written conversations"),
        ("coldstart", COLDSTART, _coldstart, "all of it: from problems to a fine-tuned pair"),
        ("evaluate", EVALUATE, _evaluate, "play benchmarks with the policies of a recipe"),
        ("behaviour", EVALUATE, _behaviour, "words, phases and perplexity of what was evaluated"),
    ):
        sub = commands.add_parser(command, help=text)
        sub.set_defaults(run=_run_recipe, play=play)
        sub.add_argument("--config-name", default=recipe, help=f"a recipe: {names}; by default {recipe}")
        sub.add_argument("--config-dir", type=Path, default=None, help="folder with recipes of your own")
        sub.add_argument("--print-config", action="store_true", help="print the complete configuration and stop")
        sub.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides")
    check = commands.add_parser("doctor", help="look at machine, packages, cluster and memory before a run")
    check.set_defaults(run=_doctor)
    check.add_argument("--config-name", default="local", help="the recipe to be run; by default local")
    check.add_argument("--config-dir", type=Path, default=None, help="folder with recipes of your own")
    check.add_argument(
        "--gpu-memory", type=float, metavar="GIB", help="reckon with GPUs of this size, not this machine's"
    )
    check.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides")
    status = commands.add_parser("status", help="where a run stands, from its folder alone")
    status.set_defaults(run=_status)
    status.add_argument("folder", type=Path, metavar="RUN", help="its folder, as outputs/<experiment_name>")
    compare = commands.add_parser("compare", help="two evaluations of the same problems, paired")
    compare.set_defaults(run=_compare)
    compare.add_argument("a", type=Path, metavar="A", help="folder that `longshort evaluate` wrote")
    compare.add_argument("b", type=Path, metavar="B", help="another, compared with it")
    report = commands.add_parser("report", help="tables, plots and transcripts of runs as one HTML file")
    report.set_defaults(run=_report)
    report.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="of a run, cold start or evaluation")
    report.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE", help="by default report.html")
    reproduce = commands.add_parser("reproduce", help="all of both methods, from distilling to the report")
    reproduce.set_defaults(run=_reproduce)
    reproduce.add_argument(
        "name", choices=(PLAYGROUND, "qwen2.5-7b"), help="the latter shows its commands without 8 GPUs"
    )
    reproduce.add_argument("--quick", action="store_true", help="fewer chains, steps and samples, on the playground")
    reproduce.add_argument("--out", type=Path, metavar="FOLDER", help="by default outputs/reproduce_<name>")
    _add_data(commands)
    _add_pair(commands)
    return parser


def _add_pair(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    export = commands.add_parser("export", help="the pair of a run as one folder")
    export.set_defaults(run=_export)
    export.add_argument("run_folder", type=Path, metavar="RUN", help="its folder, as outputs/<experiment_name>")
    export.add_argument("out", type=Path, metavar="OUT", help="the pair's folder, a new one")
    export.add_argument("--step", type=int, help="of a checkpoint; by default the one that the last round selected")
    for command, run, text in (
        ("serve", _serve, "an OpenAI-compatible server for a pair"),
        ("chat", _chat, "talk with a pair in the terminal"),
    ):
        sub = commands.add_parser(command, help=text)
        sub.set_defaults(run=run, overrides=[])
        sub.add_argument(
            "pair",
            nargs="+",
            metavar="PAIR",
            help="a pair's folder, playground, or a long and a short model; then key=value, see docs/serve.md",
        )


def _add_data(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sub = commands.add_parser("data", help="prepare a data set that the papers train on")
    sub.set_defaults(run=_prepare)
    sub.add_argument("name", choices=SOURCES, help="the data set")
    sub.add_argument("--source", help="a file, a folder or a data set of the hub in place of the data set's own")
    sub.add_argument("--out", type=Path, metavar="FOLDER", help="where to write; by default data/<name>")
    sub.add_argument("--limit", type=int, metavar="N", help="draw N problems at random; by default all")
    sub.add_argument("--seed", type=int, default=0, help="of the draw; by default 0")
    sub.add_argument(
        "--validation",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH",
        help="problems whose questions should not be among the training problems",
    )
    sub.add_argument("--drop-overlap", action="store_true", help="drop training problems with such a question")


if __name__ == "__main__":
    sys.exit(main())
