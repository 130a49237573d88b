"""What the commands do: of the command line's options, or of a recipe's configuration."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig

from longshort.config import build_config
from longshort.display import Display
from longshort.hiding import as_yaml
from longshort.stopping import StopRequest
from longshort.validation import require_learners

TERMINATED = "SIGTERM"
PLAYGROUND = "playground"


class UnfitError(RuntimeError):
    """A check of the doctor failed."""


def run_recipe(options: argparse.Namespace) -> None:
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


async def train(config: DictConfig) -> None:
    from longshort.assembly import open_run

    require_learners(config)
    stop = StopRequest()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, stop.make)
    with Display() as display:
        async with open_run(config, display, stop) as run:
            await run.fit()


async def sft(config: DictConfig) -> None:
    from longshort.sft import sft

    with Display() as display:
        await sft(config, display)


def stage(name: str) -> Callable[[DictConfig], Awaitable[None]]:
    async def run(config: DictConfig) -> None:
        from longshort.coldstart.pipeline import run_stages

        with Display() as display:
            await run_stages(config, display, (name,))

    return run


async def coldstart(config: DictConfig) -> None:
    from longshort.coldstart.pipeline import coldstart

    with Display() as display:
        await coldstart(config, display)


async def demo(config: DictConfig) -> None:
    from longshort.demo import demo

    await demo(config)


async def evaluate(config: DictConfig) -> None:
    from longshort.evaluation.evaluate import evaluate

    with Display() as display:
        await evaluate(config, display)


async def behaviour(config: DictConfig) -> None:
    from longshort.evaluation.behaviour.run import behaviour

    with Display() as display:
        await behaviour(config, display)


def doctor(options: argparse.Namespace) -> None:
    from longshort.doctor.doctor import doctor

    config = build_config(options.config_name, options.overrides, options.config_dir)
    with Display() as display:
        healthy = doctor(config, display, options.gpu_memory)
    if not healthy:
        raise UnfitError("something failed; the table says what to do about it")


def status(options: argparse.Namespace) -> None:
    from longshort.status import show_status

    with Display() as display:
        show_status(options.folder, display)


def compare(options: argparse.Namespace) -> None:
    from longshort.evaluation.comparison import show_comparison

    with Display() as display:
        show_comparison(options.a, options.b, display)


def report(options: argparse.Namespace) -> None:
    from longshort.report.report import report

    with Display() as display:
        report(options.folders, options.out, display)


def reproduce(options: argparse.Namespace) -> None:
    from longshort.reproduce.run import reproduce_playground, reproduce_qwen

    # Both sizes would write into the same folder otherwise, each under settings that the other refuses.
    name = f"{PLAYGROUND}_quick" if options.quick and options.name == PLAYGROUND else options.name
    root = options.out or Path("outputs") / f"reproduce_{name}"
    if options.name != PLAYGROUND:
        reproduce_qwen(root, sys.stdout)
        return
    with Display() as display:
        reproduce_playground(root, options.quick, display)


def prepare(options: argparse.Namespace) -> None:
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


def export(options: argparse.Namespace) -> None:
    from longshort.export import export

    with Display() as display:
        export(options.run_folder, options.out, display, options.step)


def serve(options: argparse.Namespace) -> None:
    import uvloop

    from longshort.serving.open import serve
    from longshort.serving.settings import read_settings

    spec, overrides = _pair_and_overrides(options.pair + options.overrides)
    # Half of what a server does for a token is done by its event loop.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(spec, read_settings(overrides)))


def chat(options: argparse.Namespace) -> None:
    from longshort.serving.chat import chat
    from longshort.serving.settings import read_settings

    spec, overrides = _pair_and_overrides(options.pair + options.overrides)
    asyncio.run(_until_terminated(chat(spec, read_settings(overrides))))


def _pair_and_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What names a pair, and ``key=value``."""
    overrides = [each for each in arguments if "=" in each]
    return [each for each in arguments if each not in overrides], overrides
