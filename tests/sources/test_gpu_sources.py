"""Every name and parameter of vLLM and verl that the project uses is in the versions that GPU machines install.

The tests that run anything do so on another vLLM, a build for CPU. These read the sources of the extra ``gpu``: vLLM's
from its wheel on the package index (skipped where that cannot be had), verl's from the environment.

Not proven: that the values, types and meanings are the same, and what is only known when it runs.
"""

from __future__ import annotations

import ast
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from source_trees import FolderTree, Unavailable, WheelTree, installed, user_cache
from source_uses import Call, Function, Library, Rules, dictionary_keys, lookup, problems, refusal

from workers.serving import CPU_ENGINE, engine_arguments

ROOT = Path(__file__).parents[2]
OURS = ("workers", "longshort", "benchmarks")
SETUP = (ROOT / "setup.py").read_text()

WORKER = "vllm.v1.worker.gpu_worker:Worker"
# vLLM chooses one of them by the model's architecture.
RUNNERS = ("vllm.v1.worker.gpu_model_runner:GPUModelRunner", "vllm.v1.worker.gpu.model_runner:GPUModelRunner")
EXTENSION = "workers.vllm_extension:PolicyWorkerExtension"
VLLM_ROLLOUT = "verl.workers.rollout.vllm_rollout"
SERVER, REPLICA = (f"{VLLM_ROLLOUT}.vllm_async_server:{name}" for name in ("vLLMHttpServer", "vLLMReplica"))
POOL = "verl.single_controller.ray.base:RayResourcePool"
ACTOR = "verl.workers.engine_workers:ActorRolloutRefWorker"

# The files of verl through which we use vLLM.
VERL_ON_VLLM = (f"{VLLM_ROLLOUT}.vllm_async_server", f"{VLLM_ROLLOUT}.utils", f"{VLLM_ROLLOUT}.vllm_rollout")


def modules_of(package: str) -> list[str]:
    files = sorted((ROOT / package).rglob("*.py"))
    return [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]


def names_in_use() -> frozenset[str]:
    """Every attribute that our code reads, and every text in it, such as the name of a remote method."""
    names: set[str] = set()
    for file in (file for package in OURS for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                names.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)
    return frozenset(names)


OUR_RULES = Rules(
    packages=("verl", "vllm"),
    mixed_into={EXTENSION: WORKER},
    # The first registers its members while it is imported, the second has the methods of its workers.
    dynamic=frozenset(
        {"verl.single_controller.base.decorator:Dispatch", "verl.single_controller.ray.base:RayWorkerGroup"}
    ),
    called=names_in_use(),
)
VERL_RULES = Rules(
    packages=("vllm",),
    mixed_into={f"{VLLM_ROLLOUT}.utils:vLLMColocateWorkerExtension": WORKER},
    types={"engine": "vllm.v1.engine.async_llm:AsyncLLM"},
    # verl serves several versions of vLLM: what it guards may be missing.
    skip_guarded=True,
)

# What is used only where the other vLLM has it, that of the CPU tests. (module, what is reported, why it is right)
ONLY_ON_CPU = [
    (
        "workers.vllm_extension",
        f"vllm.model_executor.models.utils.WeightsMapper has no {name}",
        "asked for before it is used; verl wants it of vLLM 0.25 and later only",
    )
    for name in ("get_rename_mapper", "get_unstacked_mapper")
]

# What the analysis cannot follow: values whose type is only known when they are there. (used in, what, call)
BY_HAND: list[tuple[str, str, Call | None]] = [
    ("workers/placement.py", f"{POOL}.get_placement_groups", Call(keywords=("device_name",))),
    ("workers/policy.py", f"{POOL}.store", None),
    ("workers/policy.py", f"{POOL}.world_size", None),
    ("workers/policy.py", f"{ACTOR}.init_model", Call()),
    ("workers/policy.py", f"{ACTOR}.compute_log_prob", Call(1)),
    ("workers/policy.py", f"{ACTOR}.compute_ref_log_prob", Call(1)),
    ("workers/policy.py", f"{ACTOR}.update_actor", Call(1)),
    ("workers/policy.py", f"{ACTOR}.update_weights", Call()),
    ("workers/policy.py", f"{REPLICA}.sleep", Call()),
    ("workers/policy.py", f"{REPLICA}.wake_up", Call()),
    ("workers/rollout.py", f"{REPLICA}.server_handle", None),
    *[("workers/actor.py", f"{ACTOR}.{name}", None) for name in ("base_sync_done", "rollout", "rank")],
    ("workers/rollout.py", f"{REPLICA}.launch_servers", Call()),
    *[("workers/rollout.py", f"{REPLICA}.{name}", None) for name in ("servers", "nnodes", "replica_rank")],
    *[
        ("workers/rollout.py", f"vllm.v1.engine.async_llm:AsyncLLM.{n}", Call())
        for n in ("check_health", "is_sleeping")
    ],
    ("workers/rollout.py", f"{REPLICA}.init_hybrid", Call(1)),
    ("workers/rollout.py", f"{REPLICA}.init_colocated", Call(1)),
    (
        "workers/rollout.py",
        f"{SERVER}.generate",
        Call(keywords=("prompt_ids", "sampling_params", "request_id", "priority")),
    ),
    *[
        ("workers/rollout.py", f"verl.workers.rollout.replica:TokenOutput.{name}", None)
        for name in ("stop_reason", "token_ids", "log_probs", "extra_fields")
    ],
    ("workers/rollout.py", "vllm.v1.engine.exceptions:EngineDeadError", None),
    ("workers/serving.py", "vllm.v1.engine.async_llm:AsyncLLM.generate", Call(3, keywords=("priority",))),
    ("workers/serving.py", "vllm.v1.engine.async_llm:AsyncLLM.errored", None),
    ("workers/serving.py", "vllm.v1.engine.async_llm:AsyncLLM.output_processor", None),
    ("workers/serving.py", "vllm.v1.engine.output_processor:OutputProcessor.stream_interval", None),
    ("workers/serving.py", "vllm.v1.engine.async_llm:AsyncLLM.shutdown", Call()),
    *[
        ("workers/serving.py", f"vllm.outputs:{name}", None)
        for name in ("RequestOutput.outputs", "RequestOutput.num_cached_tokens", "CompletionOutput.finish_reason")
    ],
    ("workers/vllm_extension.py", f"{WORKER}.model_runner", None),
    *[("workers/vllm_extension.py", f"{runner}.vllm_config", None) for runner in RUNNERS],
    ("workers/vllm_extension.py", "vllm.config.vllm:VllmConfig.parallel_config", None),
    *[
        ("workers/vllm_extension.py", f"{runner}.reload_weights", Call(keywords=("weights_iterator",)))
        for runner in RUNNERS
    ],
    *[
        ("workers/checkpoint.py", f"verl.workers.engine.fsdp.transformer_impl:FSDPEngine.{name}", None)
        for name in ("module", "optimizer", "lr_scheduler", "model_config", "get_per_tensor_param")
    ],
]

# Environment variables that we set or read, and the module that is at the other end.
VARIABLES = {
    "VLLM_LOGGING_LEVEL": "vllm.envs",
    "VLLM_TARGET_DEVICE": "vllm.envs",
    "VLLM_CPU_OMP_THREADS_BIND": "vllm.envs",
    "VLLM_WORKER_MULTIPROC_METHOD": "vllm.envs",
    "VERL_PLATFORM": "verl.plugin.platform.platform_manager",
    "VERL_USE_EXTERNAL_MODULES": "verl",
    "WG_PREFIX": "verl.single_controller.ray.base",
    "RAY_LOCAL_WORLD_SIZE": "verl.single_controller.ray.base",
}


def pinned(package: str) -> str:
    """The version in setup.py."""
    (found,) = set(re.findall(rf'"{package}==([^"]+)"', SETUP))
    return found


class WheelOrSkip(WheelTree):
    """A wheel's sources; a test that needs some that are not to be had is skipped."""

    def text(self, path: str) -> str | None:
        try:
            return super().text(path)
        except Unavailable as error:
            pytest.skip(str(error))


@pytest.fixture(scope="module")
def library() -> Library:
    wanted = f"vllm=={pinned('vllm')}"
    try:
        vllm = WheelOrSkip(wanted, user_cache() / wanted)
    except Unavailable as error:
        pytest.skip(str(error))
    return Library({**dict.fromkeys(OURS, FolderTree(ROOT)), "verl": installed("verl"), "vllm": vllm})


def test_the_installed_verl_is_the_one_that_gpu_machines_install() -> None:
    assert version("verl") == pinned("verl")


@pytest.mark.parametrize("module", [module for package in OURS for module in modules_of(package)])
def test_a_module_uses_only_names_and_parameters_that_are_there(library: Library, module: str) -> None:
    found = {problem.split(": ", 1)[1]: problem for problem in problems(library, module, OUR_RULES)}
    expected = {text for where, text, _ in ONLY_ON_CPU if where == module}
    assert [problem for text, problem in found.items() if text not in expected] == []
    assert expected <= set(found), "no longer used: drop its line"


@pytest.mark.parametrize(("file", "target", "call"), BY_HAND)
def test_what_the_analysis_cannot_follow_is_there_too(
    library: Library, file: str, target: str, call: Call | None
) -> None:
    name = re.split(r"[.:]", target)[-1]
    assert re.search(rf"\b{name}\b", (ROOT / file).read_text()), f"{file} no longer uses {name}: drop its line"
    found = lookup(library, target)
    assert found is not None, f"{target} is not there"
    if call is not None:
        assert isinstance(found.node, Function)
        assert refusal(library, found, call) is None


def test_vllm_takes_the_sampling_parameters_of_a_turn(library: Library) -> None:
    parameters = dictionary_keys(library, "workers.rollout", "sampling")
    assert {"max_tokens", "seed", "stop", "include_stop_str_in_output"} <= parameters, "the dictionary has moved"
    target = lookup(library, "vllm.sampling_params:SamplingParams")
    assert target is not None
    assert refusal(library, target, Call(keywords=tuple(sorted(parameters)))) is None


def test_vllm_knows_every_engine_argument_of_serving(library: Library) -> None:
    arguments = {*CPU_ENGINE, *engine_arguments("model", 1, "auto", "cpu"), "gpu_memory_utilization"}
    target = lookup(library, "vllm.engine.arg_utils:AsyncEngineArgs")
    assert target is not None
    assert arguments - set(library.members(target).fields) == set()


def test_verls_server_finds_everything_that_it_wants_of_vllm(library: Library) -> None:
    found = [problem for module in VERL_ON_VLLM for problem in problems(library, module, VERL_RULES)]
    assert found == []


def test_vllm_knows_every_engine_argument_of_verl_and_of_our_recipes(library: Library) -> None:
    arguments = dictionary_keys(library, f"{VLLM_ROLLOUT}.vllm_async_server", "args")
    assert {"worker_extension_cls", "enable_sleep_mode", "scheduling_policy"} <= arguments, "the dictionary has moved"
    for file in (ROOT / "configs").glob("*.yaml"):
        recipe = OmegaConf.load(file)
        arguments |= set(OmegaConf.select(recipe, "actor_rollout_ref.rollout.engine_kwargs.vllm") or {})
    assert "kv_cache_memory_bytes" in arguments, "no recipe was read"
    options = texts(library, "vllm.engine.arg_utils") | texts(library, "vllm.entrypoints.openai.cli_args")
    target = lookup(library, "vllm.engine.arg_utils:AsyncEngineArgs")
    assert target is not None
    fields = set(library.members(target).fields)
    # A recipe's argument is an option of the command line and a field of the engine's.
    assert {a for a in arguments if f"--{a.replace('_', '-')}" not in options and a not in fields} == set()


def test_the_extension_has_no_name_that_vllms_worker_has(library: Library) -> None:
    """vLLM refuses to start otherwise."""
    extension, worker = lookup(library, EXTENSION), lookup(library, WORKER)
    assert extension is not None
    assert worker is not None
    ours = {name for name, symbol in library.members(extension).found.items() if isinstance(symbol.node, Function)}
    assert "update_weights_from_ipc" in ours
    assert {name for name in ours & set(library.members(worker).found) if not name.startswith("__")} == set()


@pytest.mark.parametrize(("variable", "module"), VARIABLES.items())
def test_an_environment_variable_is_known_at_the_other_end(library: Library, variable: str, module: str) -> None:
    assert variable in texts(library, module)


def texts(library: Library, module: str) -> set[str]:
    """Every text in a module."""
    parsed = library.parsed(module)
    assert parsed is not None, f"there is no module {module}"
    constants = (node.value for node in ast.walk(parsed[0]) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str)}
