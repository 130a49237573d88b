"""The doctor: what it reckons is what torch allocates, and everything that is missing is said with a remedy.

Not proved here: activations, which are an upper estimate, and what an engine allocates on a GPU.
"""

from __future__ import annotations

import io
import logging
import socket
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import DictConfig
from ray.exceptions import RaySystemError
from rich.console import Console

from longshort.cli import main
from longshort.config import build_config
from longshort.display import Display
from longshort.doctor import machine
from longshort.doctor.check import Check, Level
from longshort.doctor.cluster import check_cluster, judge
from longshort.doctor.doctor import warn_before_start
from longshort.doctor.fit import GIB, Member, check_fit, phases, read_members
from longshort.doctor.machine import Gpu
from longshort.doctor.memory import Sizes, engine, read_sizes, training
from longshort.playground import model_path
from workers.nodes import Node

# Qwen2.5-7B, by its published configuration: 7.6 billion parameters.
OUTER = 2 * 152064 * 3584 + 3584
QWEN_7B = Sizes(
    7_615_616_512, OUTER, (7_615_616_512 - OUTER) // 28, 28 * 120_000, 28, 3584, 18944, 3584, 512, 4, 152064
)


@cache
def recipe(name: str, *overrides: str) -> DictConfig:
    return build_config(name, overrides)


def levels(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.level.value for check in checks}


@pytest.mark.parametrize("role", ["long", "short"])
def test_weights_gradients_and_optimiser_are_what_torch_allocates(role: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_path(role), dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.arange(8)[None]).logits.sum().backward()
    optimizer.step()
    policy = recipe("local").policies[role]
    told = training(policy, read_sizes(policy.model), ranks=1)
    weights = sum(p.nbytes for p in model.parameters())
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    moments = sum(t.nbytes for state in optimizer.state.values() for t in state.values() if t.dim())
    assert (told.weights, told.gradients, told.optimizer) == (weights, gradients, moments)
    assert training(policy, read_sizes(policy.model), ranks=4).optimizer == moments / 4


def test_a_kv_cache_of_a_token_is_what_transformers_keeps_of_it() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_path("long"), dtype=torch.float32)
    kept = model(torch.arange(8)[None], use_cache=True).past_key_values
    size = sum(layer.keys.nbytes + layer.values.nbytes for layer in kept.layers)
    policy = recipe("local").policies.long
    told = engine(policy, read_sizes(policy.model), "cpu", may_sleep=True)
    assert told.cache_a_token * 8 == size
    assert told.weights == sum(p.nbytes for p in model.parameters())


def test_activations_are_an_upper_estimate_of_what_a_backward_pass_keeps() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    policy, tokens = recipe("local").policies.long, 256
    model = AutoModelForCausalLM.from_pretrained(model_path("long"), dtype=torch.float32)
    own = {p.data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = model.model(torch.arange(tokens)[None] % 50).last_hidden_state
    assert hidden.requires_grad
    told = training(policy, read_sizes(policy.model), ranks=1).activations
    told *= tokens / policy.actor.ppo_max_token_len_per_gpu
    assert 0.5 * told < sum(kept.values()) <= told * 1.34


def test_a_7b_learner_on_six_gpus_and_its_partner_by_hand() -> None:
    config = recipe("longshort_qwen2.5_7b")
    policy = config.policies.long
    told = training(policy, QWEN_7B, ranks=6)
    assert told.weights == told.gradients == QWEN_7B.parameters * 4 / 6
    assert told.optimizer == 2 * told.weights
    assert told.logits == 18432 * 152064 * 10
    assert engine(policy, QWEN_7B, "cuda", True).cache_a_token == 2 * 28 * 512 * 2
    member = Member("long", QWEN_7B, engine(policy, QWEN_7B, "cuda", True), told)
    playing, learning = phases([member], 80 * GIB)
    assert playing.total == pytest.approx(0.6 * 80 * GIB + 3 * told.weights)
    assert learning.total == told.peak, "its engine sleeps meanwhile"


@pytest.mark.parametrize(
    ("name", "overrides", "gib", "failing", "remedy"),
    [
        ("longshort_qwen2.5_7b", (), 24, "long learns", "ppo_max_token_len_per_gpu"),
        ("longshort_qwen2.5_7b", ("actor_rollout_ref.rollout.gpu_memory_utilization=0.1",), 80, "KV cache", "raise"),
        ("longshort_qwen2.5_7b", ("actor_rollout_ref.rollout.gpu_memory_utilization=0.95",), 80, "playing", "lower"),
    ],
)
def test_what_does_not_fit_fails_with_what_to_change(
    name: str, overrides: tuple[str, ...], gib: float, failing: str, remedy: str
) -> None:
    config = recipe(name, *overrides)
    policy = config.policies.long
    member = Member("long", QWEN_7B, engine(policy, QWEN_7B, "cuda", True), training(policy, QWEN_7B, ranks=6))
    failed = [check for check in check_fit(config, [member], gib * GIB) if check.level is Level.FAIL]
    assert any(failing in check.name and check.remedy for check in failed)
    assert any(remedy in check.remedy for check in failed)


def test_colocated_policies_share_gpus_and_rest_while_another_learns() -> None:
    config = recipe("local_gpu")
    members = read_members(config)
    playing, *learning = phases(members, 80 * GIB)
    assert [phase.name for phase in learning] == ["long learns", "short learns"]
    assert {part.split(":")[0] for part in playing.parts} == {"long", "short"}
    assert "short: at rest" in learning[0].parts and "short: engine" not in learning[0].parts
    split = recipe("local_gpu", "placement.mode=split")
    assert all(
        len({part.split(":")[0] for part in p.parts}) == 1 for m in read_members(split) for p in phases([m], GIB)
    )


def test_packages_are_compared_with_the_pins_of_the_device() -> None:
    pins = [
        "rich>=14",
        "torch==1.0 ; extra == 'cpu'",
        "nowhere-to-be-found==1 ; extra == 'gpu'",
        "mypy==0 ; extra == 'dev'",
    ]
    assert [(c.name, c.level.value) for c in machine.check_packages("cpu", pins)] == [("package torch", "warn")]
    assert levels(machine.check_packages("cuda", pins)) == {"package nowhere-to-be-found": "fail"}
    assert levels(machine.check_packages("cuda", ["nowhere-to-be-found>=1"])) == {"package nowhere-to-be-found": "fail"}
    assert levels(machine.check_packages("cpu", ["rich>=14"])) == {"packages": "ok"}


def test_a_python_beyond_the_packages_range_fails() -> None:
    assert machine.check_python().level is Level.OK
    assert machine.check_python((3, 9)).level is Level.FAIL


def test_gpus_that_are_missing_or_few_fail() -> None:
    gpu = Gpu("A", 80 * GIB, "570")
    assert levels(machine.check_gpus("cpu", 2, [])) == {"GPU": "ok"}
    assert levels(machine.check_gpus("cuda", 2, [])) == {"GPU": "fail"}
    assert levels(machine.check_gpus("cuda", 2, [gpu]))["GPU"] == "fail"
    assert levels(machine.check_gpus("cuda", 1, [gpu]))["GPU"] == "ok"
    assert "GPU memory" not in levels(machine.check_gpus("cuda", 1, [gpu]))
    busy = machine.check_gpus("cuda", 2, [gpu, Gpu("A", 80 * GIB, "570", used=30 * GIB)])
    assert levels(busy)["GPU memory"] == "warn"
    assert next(check for check in busy if check.name == "GPU memory").found.startswith("1 of 2 hold up to 30.0 GiB")


SMI = [f"{number}, GPU-{number}f7c-11, H100 80GB, 81559, {10 * number}, 570.1" for number in range(4)]


@pytest.mark.parametrize(
    ("visible", "used"),
    [
        (None, [0, 10, 20, 30]),
        ("2", [20]),
        ("3, 1", [30, 10]),
        ("GPU-2f7c", [20]),
        ("1,9,2", [10]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_the_gpus_of_a_run_are_those_that_cuda_leaves_it(visible: str | None, used: list[int]) -> None:
    assert [gpu.used // 2**20 for gpu in machine.read_gpus(SMI, visible)] == used


def test_lines_of_nvidia_smi_that_say_nothing_are_no_gpus() -> None:
    odd = ["", "No devices were found", "0, GPU-0, A, [N/A], 0, 570", "0, GPU-0, A, 100, [N/A], 570"]
    assert machine.read_gpus(odd, None) == [Gpu("A", 100 * 2**20, "570")]


def test_a_cluster_that_does_not_answer_fails() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.listen()
        assert levels(machine.check_ports({"RAY_ADDRESS": f"127.0.0.1:{port}"})) == {"ports": "ok", "RAY_ADDRESS": "ok"}
    assert levels(machine.check_ports({"RAY_ADDRESS": f"127.0.0.1:{port}"}))["RAY_ADDRESS"] == "fail"
    assert levels(machine.check_ports({})) == {"ports": "ok"}


def test_too_little_disk_for_checkpoints_fails(tmp_path: Path) -> None:
    config = build_config("local", [f"trainer.default_local_dir={tmp_path / 'new' / 'run'}", "trainer.save_freq=1"])
    huge = Sizes(10**15, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
    policy = config.policies.long
    member = Member("long", huge, engine(policy, huge, "cpu", True), training(policy, huge, 1))
    assert levels(machine.check_disk(config, [member]))["disk"] == "fail"
    assert levels(machine.check_disk(config, read_members(config)))["disk"] == "ok"


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (["trainer.save_freq=-1"], 0),
        (["trainer.save_freq=20", "trainer.total_training_steps=150"], 8),
        (["trainer.save_freq=20", "trainer.total_training_steps=150", "trainer.max_actor_ckpt_to_keep=2"], 3),
        (["trainer.save_freq=20", "trainer.total_training_steps=null"], 2),
        (["trainer.save_freq=-1", "+rounds={a: {}, b: {}}"], 2),
    ],
)
def test_the_disk_has_to_hold_what_the_run_keeps(
    settings: list[str], kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = build_config("local", settings)
    free = SimpleNamespace(free=100 * GIB)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: free)
    policy = config.policies.long
    # 14 bytes a parameter: bf16, and fp32 with two moments.
    for parameters in (int(99 * GIB / 14 / max(kept, 1)), int(101 * GIB / 14 / max(kept, 1))):
        sizes = Sizes(parameters, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
        check = machine.check_disk(
            config, [Member("long", sizes, engine(policy, sizes, "cpu", True), training(policy, sizes, 4))]
        )[0]
        fits = parameters * 14 * kept < 100 * GIB
        assert check.level is (Level.OK if fits else Level.WARN if kept > 1 else Level.FAIL)
        assert (f"each of {kept} checkpoints" in check.found) == bool(kept)


def test_wandb_without_a_login_fails_only_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    assert machine.check_wandb(recipe("local", "trainer.logger=[wandb]")).level is Level.FAIL
    assert machine.check_wandb(recipe("local")).level is Level.OK
    assert machine.check_wandb(recipe("local", "trainer.logger=[]")).found == "not asked for"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert machine.check_wandb(recipe("local", "trainer.logger=[wandb]")).level is Level.OK


def test_nodes_are_judged_by_what_they_say(tmp_path: Path) -> None:
    good = Node("a", True, True, 0.1, 8)
    assert set(levels(judge([good, good], tmp_path, 16)).values()) == {"ok"}
    bad = [good, Node("b", False, False, 0.0, 8), Node("c", True, False, -30.0, 8, ("/m",), (("fail", "torch"),))]
    checks = {check.name: check for check in judge(bad, tmp_path, 32)}
    assert {check.level.value for check in checks.values()} == {"fail"}
    assert checks["nodes"].found == "no answer from b"
    assert checks["shared folder"].found == f"{tmp_path} is not seen by c"
    assert checks["clocks"].found == "differs from here: c by -30.0 s"
    assert "asks for 32" in checks["devices of the cluster"].remedy


def test_nodes_that_lack_a_model_or_a_package_are_named(tmp_path: Path) -> None:
    old, bare = ("warn", "package vllm 0.1"), ("fail", "GPU nvidia-smi lists none")
    nodes = [
        Node("a", True, True, 0.0, 8, faults=(old,)),
        Node("b", True, True, 0.0, 8, lacks=("/m/long", "/m/short")),
        # A head without devices gets no part of a policy.
        Node("c", True, True, 0.0, 0, lacks=("/m/long",)),
    ]
    checks = {check.name: check for check in judge(nodes, tmp_path, 16)}
    assert checks["models"].found == "not seen: /m/long and /m/short by b"
    assert checks["models"].level is Level.FAIL
    assert (checks["packages of the nodes"].level, checks["packages of the nodes"].found) == (
        Level.WARN,
        "package vllm 0.1 on a",
    )
    worse = judge([*nodes, Node("d", True, True, 0.0, 8, faults=(old, bare))], tmp_path, 16)
    assert levels(worse)["packages of the nodes"] == "fail"


def test_a_node_asked_from_afar_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_nvidia_smi", list)
    monkeypatch.setattr(
        machine, "check_packages", lambda device: [Check("package a", Level.WARN, "0.1"), Check("b", Level.OK, "1")]
    )
    assert machine.faults_of_this_node("cpu") == (("warn", "package a 0.1"),)
    assert machine.faults_of_this_node("cuda")[1:] == (("fail", "GPU nvidia-smi lists none"),)


def test_the_doctor_prints_a_table_and_its_exit_code_is_one_where_something_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder = f"trainer.default_local_dir={tmp_path / 'run'}"
    monkeypatch.setattr("longshort.doctor.doctor.check_packages", lambda device: [])
    assert main(["doctor", folder]) == 0
    assert "KV cache of short" in capsys.readouterr().out
    assert main(["doctor", folder, "--gpu-memory", "0.1"]) == 1
    captured = capsys.readouterr()
    assert "fail  memory, long learns (long)" in captured.out and "something failed" in captured.err
    assert main(["doctor", folder, f"policies.long.model.path={tmp_path}"]) == 1
    assert "fail  models" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_run_is_warned_of_what_may_not_fit_where_gpus_are_known_and_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    display = Display(Console(file=out, width=300))
    monkeypatch.setattr("longshort.doctor.doctor.find_gpus", lambda: [Gpu("small", GIB // 4, "570")])
    warn_before_start(recipe("local"), display)
    assert out.getvalue() == ""
    warn_before_start(recipe("local_gpu", f"trainer.default_local_dir={tmp_path}"), display)
    assert "an estimate before anything starts" in out.getvalue() and "learns" in out.getvalue()


@pytest.mark.parametrize("error", [AttributeError("num_attention_heads"), KeyError("float8")])
def test_a_model_that_the_estimate_does_not_understand_stops_no_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    def refuse(config: DictConfig) -> list[Member]:
        raise error

    monkeypatch.setattr("longshort.doctor.doctor.find_gpus", lambda: [Gpu("small", GIB // 4, "570")])
    monkeypatch.setattr("longshort.doctor.doctor.read_members", refuse)
    with caplog.at_level(logging.WARNING):
        warn_before_start(
            recipe("local_gpu", f"trainer.default_local_dir={tmp_path}"), Display(Console(file=io.StringIO()))
        )
    (record,) = caplog.records
    assert type(error).__name__ in record.message and "the run starts without" in record.message
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("longshort.doctor.doctor.check_packages", lambda device: [])
    assert main(["doctor", f"trainer.default_local_dir={tmp_path}"]) == 0
    assert "warn  models" in capsys.readouterr().out


def test_a_cluster_whose_head_does_not_answer_is_not_joined_and_the_table_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[DictConfig] = []

    def ask(config: DictConfig, needed: int) -> list[Check]:
        asked.append(config)
        return []

    monkeypatch.setattr("longshort.doctor.doctor.check_cluster", ask)
    monkeypatch.setattr("longshort.doctor.doctor.check_packages", lambda device: [])
    folder = f"trainer.default_local_dir={tmp_path / 'run'}"
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{silent.getsockname()[1]}")
        assert main(["doctor", folder]) == 1
        assert "fail  RAY_ADDRESS" in capsys.readouterr().out
        assert asked == []
        silent.listen()
        assert main(["doctor", folder]) == 0
        assert len(asked) == 1
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert main(["doctor", folder]) == 0
    assert len(asked) == 1, "an empty address names no cluster"


@pytest.mark.parametrize(
    "error", [ConnectionError("no\nGCS"), RuntimeError("no GCS"), ValueError("no GCS"), RaySystemError("no GCS")]
)
def test_a_cluster_that_cannot_be_asked_fails_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(config: DictConfig) -> None:
        raise error

    monkeypatch.setattr("workers.team.start_ray", refuse)
    (check,) = check_cluster(recipe("local", f"trainer.default_local_dir={tmp_path}"), 1)
    assert (check.name, check.level) == ("cluster", Level.FAIL)
    assert "no GCS" in check.found and check.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_cluster_that_cannot_be_made_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (check,) = check_cluster(recipe("local", f"trainer.default_local_dir={tmp_path / 'file' / 'run'}"), 1)
    assert (check.name, check.level) == ("shared folder", Level.FAIL)
    assert "cannot be written to (Not a directory)" in check.found
