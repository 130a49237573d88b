"""Shared stack: one local Ray with both policies' workers and engines, started once for all tests of a module."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from longshort.config import build_config
from longshort.display import Display
from longshort.run import Run
from tests.planted import PLANTED, SEARCHED, SETTING
from workers.team import configure_environment

# verl and vLLM read it when they are imported, which only happens below.
configure_environment("cpu")

SHARED = Path(os.environ.get("LONGSHORT_SHARED", Path(__file__).parents[3] / "shared"))
MATH500 = SHARED / "data" / "benchmarks" / "math500.json"


@pytest.fixture(scope="module")
def planted_secrets() -> Iterator[dict[str, str]]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in PLANTED.items():
            patch.setenv(name, value)
        yield SEARCHED


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def run(
    planted_secrets: dict[str, str], random_pair_settings: list[str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Run]:
    """A run that trains both policies on real mathematics, with every engine up."""
    from longshort.assembly import open_run

    problems = [str(MATH500)] if MATH500.is_file() else ["playground:train:64:0"]
    config = build_config(
        "local",
        [
            *random_pair_settings,
            SETTING,
            f"data.train_files={problems}",
            "data.val_files=[]",
            "actor_rollout_ref.actor.use_kl_loss=true",
            # A planted key is no login.
            "trainer.logger=[tensorboard]",
            f"trainer.default_local_dir={tmp_path_factory.mktemp('run')}",
        ],
    )
    with Display() as display:
        async with open_run(config, display) as opened:
            yield opened
