"""What every stage of the cold start is given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from longshort.config import ENDPOINT
from longshort.display import Display
from longshort.endpoint import Endpoint, EndpointGenerator
from longshort.generation import Generator, Tokenizer
from longshort.grading_pool import GradingPool
from longshort.lazy_engines import LazyEngines
from longshort.model_folder import read_tokenizer

# By name of a model, its generation for as long as the context lasts.
OpenModel = Callable[[str], AbstractAsyncContextManager[Generator]]


@dataclass(frozen=True)
class Setting:
    """Configuration and surroundings of a stage.

    Attributes:
        config: the whole recipe.
        display: where progress is shown.
        grader: compares answers.
        open_model: see :func:`opener`.
    """

    config: DictConfig
    display: Display
    grader: GradingPool
    open_model: OpenModel

    @property
    def folder(self) -> Path:
        return folder_of(self.config)

    def settings(self, stage: str, *models: str) -> dict[str, Any]:
        """What the records of a stage depend on: its own settings, the seed and the models it asks."""
        own: dict[str, Any] = {
            stage: OmegaConf.to_container(self.config.coldstart[stage]) if stage in self.config.coldstart else None,
            "seed": self.config.seed,
        }
        for name in models:
            model = self.config.models[name]
            own[name] = (
                {"url": model.endpoint.url, "model": model.endpoint.model} if ENDPOINT in model else model.model.path
            )
        return own


def folder_of(config: DictConfig) -> Path:
    """Where all stages write."""
    return Path(config.coldstart.folder)


def opener(config: DictConfig, display: Display) -> OpenModel:
    """Engines on Ray, as many replicas as ``trainer.n_gpus_per_node`` on ``trainer.nnodes`` hold, or an endpoint."""

    @asynccontextmanager
    async def open_model(name: str) -> AsyncIterator[Generator]:
        model = model_of(config, name)
        if ENDPOINT in model:
            async with EndpointGenerator(endpoint_of(model, name)) as generator:
                yield generator
            return
        engines = LazyEngines(partial(_start, config, name, display), _stop)
        try:
            yield engines[name]
        finally:
            engines.stop()

    return open_model


async def _start(config: DictConfig, name: str, display: Display) -> dict[str, Generator]:
    from workers import team

    team.configure_environment(config.trainer.device)
    tokenizer = read_tokenizer(config.models[name].model, f"models.{name}.model")
    display.stage(f"starting the {name}")
    generator = await team.start_model(config, name, tokenizer)
    display.stage(f"asking the {name}")
    return {name: generator}


def _stop() -> None:
    from workers import team

    team.stop()


def model_of(config: DictConfig, name: str) -> DictConfig:
    """The settings of a model; ValueError where the recipe has none of this name."""
    if name not in config.models:
        raise ValueError(
            f"models.{name} is not set, but a stage asks it; give models.{name}.model.path, or models.{name}.endpoint"
        )
    return config.models[name]


def endpoint_of(model: DictConfig, name: str) -> Endpoint:
    """The endpoint that a recipe describes; ValueError for unknown settings."""
    given = OmegaConf.to_container(model.endpoint)
    assert isinstance(given, dict)
    given.pop("tokenizer", None)
    try:
        return Endpoint(**{str(key): value for key, value in given.items()})
    except TypeError as error:
        raise ValueError(f"models.{name}.endpoint: {error}; see longshort/endpoint.py for its settings") from error


def tokenizer_of(config: DictConfig, name: str) -> Tokenizer:
    """The tokenizer that lengths are counted in; an endpoint names one in ``endpoint.tokenizer``."""
    model = model_of(config, name)
    if ENDPOINT not in model:
        tokenizer: Tokenizer = read_tokenizer(model.model, f"models.{name}.model")
        return tokenizer
    if not model.endpoint.get("tokenizer"):
        raise ValueError(
            f"models.{name}.endpoint.tokenizer is not set; give the folder or hub name of {model.endpoint.model}, "
            "because lengths of thoughts are counted in its tokens"
        )
    from transformers import AutoTokenizer

    found: Tokenizer = AutoTokenizer.from_pretrained(model.endpoint.tokenizer)
    return found
