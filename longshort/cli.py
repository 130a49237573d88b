"""The command line: ``longshort <command>``; without arguments a command runs on the playground."""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from longshort import commands
from longshort.checkpoints import DamagedCheckpointError, SaveFailedError
from longshort.config import config_dir
from longshort.hiding import HidingFilter, hide
from longshort.reproduce.errors import StepFailedError
from longshort.sources import SOURCES
from longshort.stages import ItemsFailedError
from longshort.stopping import StoppedEarlyError
from longshort.trainer import NonFiniteUpdateError, RewardFailureError
from workers.errors import PolicyFailedError

# Not a user's mistake; one sentence says what it was.
FAILURES = (
    *(PolicyFailedError, RewardFailureError, NonFiniteUpdateError),
    *(ItemsFailedError, SaveFailedError, DamagedCheckpointError, commands.UnfitError, StepFailedError),
)
DISK_REFUSES = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
# sysexits.h: try again later.
STOPPED_EARLY = 75
COLDSTART = "coldstart_playground"
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
    except OSError as error:
        if error.errno not in DISK_REFUSES:
            return _unexpected()
        sys.stderr.write(hide(f"longshort: the disk refuses ({error}); make room and start the same command again\n"))
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
    except Exception:
        return _unexpected()
    return 0


def _unexpected() -> int:
    """The traceback of what is being handled, as Python itself would print it but without secrets."""
    sys.stderr.write(hide(traceback.format_exc()))
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="longshort", description=__doc__)
    subcommands = parser.add_subparsers(dest="command", required=True)
    names = ", ".join(sorted(p.stem for p in config_dir().glob("*.yaml") if p.stem not in {"base", "verl"}))
    for command, recipe, play, text in (
        ("train", "local", commands.train, "train the policies of a recipe"),
        ("demo", "demo", commands.demo, "train the playground pair and compare it with itself before"),
        ("distill", COLDSTART, commands.stage("distill"), "let a reasoning model think about problems"),
        ("chunk", COLDSTART, commands.stage("chunk"), "divide its chains into thoughts"),
        ("score", COLDSTART, commands.stage("score"), "score the thoughts by rollouts of a base model"),
        ("synthesize", COLDSTART, commands.stage("synthesize"), "make conversations of the scored thoughts"),
        ("sft", "sft_playground", commands.sft, "fine-tune policies on written conversations"),
        ("coldstart", COLDSTART, commands.coldstart, "all of it: from problems to a fine-tuned pair"),
        ("evaluate", EVALUATE, commands.evaluate, "play benchmarks with the policies of a recipe"),
        ("behaviour", EVALUATE, commands.behaviour, "words, phases and perplexity of what was evaluated"),
    ):
        sub = subcommands.add_parser(command, help=text)
        sub.set_defaults(run=commands.run_recipe, play=play)
        sub.add_argument("--config-name", default=recipe, help=f"a recipe: {names}; by default {recipe}")
        sub.add_argument("--config-dir", type=Path, default=None, help="folder with recipes of your own")
        sub.add_argument("--print-config", action="store_true", help="print the complete configuration and stop")
        sub.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides")
    check = subcommands.add_parser("doctor", help="look at machine, packages, cluster and memory before a run")
    check.set_defaults(run=commands.doctor)
    check.add_argument("--config-name", default="local", help="the recipe to be run; by default local")
    check.add_argument("--config-dir", type=Path, default=None, help="folder with recipes of your own")
    check.add_argument(
        "--gpu-memory", type=float, metavar="GIB", help="reckon with GPUs of this size, not this machine's"
    )
    check.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides")
    status = subcommands.add_parser("status", help="where a run stands, from its folder alone")
    status.set_defaults(run=commands.status)
    status.add_argument("folder", type=Path, metavar="RUN", help="its folder, as outputs/<experiment_name>")
    compare = subcommands.add_parser("compare", help="two evaluations of the same problems, paired")
    compare.set_defaults(run=commands.compare)
    compare.add_argument("a", type=Path, metavar="A", help="folder that `longshort evaluate` wrote")
    compare.add_argument("b", type=Path, metavar="B", help="another, compared with it")
    report = subcommands.add_parser("report", help="tables, plots and transcripts of runs as one HTML file")
    report.set_defaults(run=commands.report)
    report.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="of a run, cold start or evaluation")
    report.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE", help="by default report.html")
    reproduce = subcommands.add_parser("reproduce", help="all of both methods, from distilling to the report")
    reproduce.set_defaults(run=commands.reproduce)
    reproduce.add_argument(
        "name", choices=(commands.PLAYGROUND, "qwen2.5-7b"), help="the latter shows its commands without 8 GPUs"
    )
    reproduce.add_argument("--quick", action="store_true", help="fewer chains, steps and samples, on the playground")
    reproduce.add_argument("--out", type=Path, metavar="FOLDER", help="by default outputs/reproduce_<name>[_quick]")
    _add_data(subcommands)
    _add_pair(subcommands)
    return parser


def _add_pair(subcommands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    export = subcommands.add_parser("export", help="the pair of a run as one folder")
    export.set_defaults(run=commands.export)
    export.add_argument("run_folder", type=Path, metavar="RUN", help="its folder, as outputs/<experiment_name>")
    export.add_argument("out", type=Path, metavar="OUT", help="the pair's folder, a new one")
    export.add_argument("--step", type=int, help="of a checkpoint; by default the one that the last round selected")
    for command, run, text in (
        ("serve", commands.serve, "an OpenAI-compatible server for a pair"),
        ("chat", commands.chat, "talk with a pair in the terminal"),
    ):
        sub = subcommands.add_parser(command, help=text)
        sub.set_defaults(run=run, overrides=[])
        sub.add_argument(
            "pair",
            nargs="+",
            metavar="PAIR",
            help="a pair's folder, playground, or a long and a short model; then key=value, see docs/serve.md",
        )


def _add_data(subcommands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sub = subcommands.add_parser("data", help="prepare a data set that the papers train on")
    sub.set_defaults(run=commands.prepare)
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
