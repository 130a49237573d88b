"""The command line: ``longshort train`` and ``longshort demo``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from longshort.config import build_config, config_dir
from longshort.display import Display
from longshort.trainer import NonFiniteUpdateError, RewardFailureError
from workers.errors import PolicyFailedError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; user errors are one sentence on standard error and exit code 2."""
    parser = _parser()
    # Overrides and options may stand in any order, which argparse does not do below subcommands.
    options, rest = parser.parse_known_args(arguments)
    if unknown := [argument for argument in rest if argument.startswith("-")]:
        parser.error(f"unknown option {unknown[0]}")
    options.overrides += rest
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        config = build_config(options.config_name, options.overrides, options.config_dir)
        if options.print_config:
            sys.stdout.write(OmegaConf.to_yaml(config))
        elif options.command == "demo":
            from longshort.demo import demo

            asyncio.run(demo(config))
        else:
            asyncio.run(_train(config))
    except ValueError as error:
        sys.stderr.write(f"longshort: {error}\n")
        return 2
    except (PolicyFailedError, RewardFailureError, NonFiniteUpdateError) as error:
        sys.stderr.write("\n".join([f"longshort: {error}", *getattr(error, "__notes__", [])]) + "\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("longshort: interrupted\n")
        return 130
    return 0


async def _train(config: DictConfig) -> None:
    from longshort.assembly import open_run

    with Display() as display:
        async with open_run(config, display) as run:
            await run.fit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="longshort", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    names = ", ".join(sorted(p.stem for p in config_dir().glob("*.yaml") if p.stem not in {"base", "verl"}))
    for command, recipe, text in (
        ("train", "local", "train the policies of a recipe"),
        ("demo", "demo", "train the playground pair and compare it with itself before"),
    ):
        sub = commands.add_parser(command, help=text)
        sub.add_argument("--config-name", default=recipe, help=f"a recipe: {names}; by default {recipe}")
        sub.add_argument("--config-dir", type=Path, default=None, help="folder with recipes of your own")
        sub.add_argument("--print-config", action="store_true", help="print the complete configuration and stop")
        sub.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides")
    return parser


if __name__ == "__main__":
    sys.exit(main())
