"""The cold start on a real engine: prefixes from its cache, JSON by its grammar, directly and over its HTTP server.

Not proven here: that the fine-tuned pair plays well, which ``longshort coldstart`` measures at its end.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest_asyncio
import ray
from omegaconf import DictConfig
from transformers import AutoTokenizer

from longshort.coldstart import score
from longshort.coldstart.pipeline import STAGES
from longshort.coldstart.setting import Setting
from longshort.config import build_config
from longshort.display import Display
from longshort.endpoint import Endpoint, EndpointGenerator
from longshort.episode import Problem
from longshort.generation import Generator, SamplingParams
from longshort.grading_pool import GradingPool
from longshort.stages import read_stage
from longshort.thoughts.asking import ask
from longshort.thoughts.completer import COMPLETED_SCHEMA, ModelCompleter
from longshort.thoughts.json_reply import read_json
from longshort.thoughts.llm_chunker import BLOCKS_SCHEMA
from longshort.thoughts.segments import Gap, Kept
from workers import team

THOUGHTS, BLOCK = 8, 32


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def config(random_pair: dict[str, Path], tmp_path_factory: Any) -> DictConfig:
    return build_config(
        "coldstart_playground",
        [
            f"coldstart.folder={tmp_path_factory.mktemp('coldstart')}",
            f"models.base.model.path={random_pair['long']}",
            "actor_rollout_ref.rollout.max_model_len=4096",
            "coldstart.score.rollouts=2",
            "coldstart.score.adaptive.enabled=false",
            "coldstart.score.max_tokens=4",
            "trainer.n_gpus_per_node=1",
        ],
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(config: DictConfig) -> AsyncIterator[Generator]:
    team.configure_environment("cpu")
    tokenizer = AutoTokenizer.from_pretrained(config.models.base.model.path)
    yield await team.start_model(config, "base", tokenizer)
    team.stop()


def address(engine: Any) -> str:
    host, port = ray.get(engine._replicas[0].server_handle.get_server_address.remote())
    return f"http://{host}:{port}/v1"


async def test_every_prefix_of_a_chain_is_computed_once(engine: Generator, config: DictConfig) -> None:
    folder = Path(config.coldstart.folder)
    thoughts = ["".join(f"Let {n} and {i} be {n * i}. " for i in range(16 + n)) + "\n\n" for n in range(THOUGHTS)]
    for chain in range(3):
        write_chain(folder, f"c{chain}", [f"Chain {chain}, thought {n}: {text}" for n, text in enumerate(thoughts)])

    @asynccontextmanager
    async def open_model(name: str) -> AsyncIterator[Generator]:
        yield engine

    with Display() as display, GradingPool(1, 10.0) as grader:
        setting = Setting(config, display, grader, open_model)
        result = await STAGES["score"](setting)
    assert not result.failed
    for chain in score.divided_chains(config):
        assert all(200 <= tokens <= 800 for tokens in chain.lengths), chain.lengths
        first, second = (
            [result.records[score.Sample(chain, prefix, number).id] for prefix in range(THOUGHTS + 1)]
            for number in range(2)
        )
        whole = first[-1]["prompt_tokens"]
        sent, computed = score.prompt_tokens(first)
        assert whole > sum(chain.lengths) - 2 * THOUGHTS
        assert sent > 4 * whole
        assert computed <= 1.2 * whole
        # A sibling computes what does not fill a block, and the last token.
        siblings = score.prompt_tokens(second)[1]
        assert siblings <= (THOUGHTS + 1) * BLOCK
        print(f"chain {whole}, sent {sent}, computed {computed}, by siblings {siblings}")


def write_chain(folder: Path, key: str, thoughts: list[str]) -> None:
    """Records of the stages before scoring."""
    folder.mkdir(parents=True, exist_ok=True)
    problem = {"id": key, "question": "1+1", "answer": "2", "source": ""}
    chain = {"problem": problem, "response": "", "tokens": 0, "closed": True, "correct": True}
    parts = [{"text": t, "kind": "derivation", "start": n + 1, "end": n + 1} for n, t in enumerate(thoughts)]
    divided = {"thoughts": parts, "made_by": "rules", "repaired_steps": 0, "faults": []}
    for name, record in (("chains", chain), ("thoughts", divided)):
        with (folder / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps({"id": key, "record": record}) + "\n")
    assert read_stage(folder, "thoughts")[key] == divided


# What a random model writes is rubbish, so a schema with little freedom shows whether decoding is guided.
NARROW = {
    "type": "object",
    "properties": {"block 1": {"type": "string", "enum": ["start", "end"]}},
    "required": ["block 1"],
    "additionalProperties": False,
}


async def test_a_schema_guides_the_engine_directly_and_over_http(engine: Generator) -> None:
    async def answer(generator: Generator) -> Any:
        params = SamplingParams(128, json_schema=NARROW, seed=1)
        messages = [{"role": "user", "content": "Say something."}]
        return (await ask(generator, messages, params, "s", read_json, retries=0)).value

    assert (await answer(engine))["block 1"] in ("start", "end")
    async with EndpointGenerator(Endpoint(address(engine), model_of(engine), key_variable=None)) as endpoint:
        assert (await answer(endpoint))["block 1"] in ("start", "end")
        assert endpoint.counters.unguided == 0


def model_of(engine: Any) -> str:
    """The name that the engine's server has for its model."""
    return str(
        ray.get(engine._replicas[0].server_handle.__ray_call__.remote(lambda server: server.model_config.local_path))
    )


async def test_the_engine_takes_the_schemas_of_chunker_and_completer(engine: Generator) -> None:
    """A random model rarely ends its JSON; what it writes begins as the grammar has it, and its faults are counted."""
    for schema in (BLOCKS_SCHEMA, COMPLETED_SCHEMA):
        params = SamplingParams(64, json_schema=schema, seed=2)
        text = (await ask(engine, [{"role": "user", "content": "x"}], params, "s", str, retries=0)).value
        assert text is None or text.lstrip().startswith("{")
    completer = ModelCompleter(engine, retries=1, max_tokens=64)
    completed = await completer.complete(Problem("p", "1+1", "2"), [Kept("1+1=2"), Gap(("final answer",))])
    assert completed.texts is not None or len(completed.faults) == 2
