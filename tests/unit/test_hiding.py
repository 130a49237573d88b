"""Planted secrets are in nothing that a run writes.

Not proved here: what Ray and engines write (``tests/integration/test_stack.py``), and secrets that neither a name nor
an address gives away.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from longshort import assembly, hiding
from longshort.cli import main
from longshort.config import build_config
from longshort.display import Display
from longshort.hiding import HIDDEN, HidingFilter, hide, shown
from longshort.resuming import refuse_changes
from longshort.trackers import make_trackers

PLANTED = {
    "WANDB_API_KEY": "planted0wandb0key0123456789abcdef012345678",
    "HF_TOKEN": "hf_planted0token0123456789",
    "OPENAI_API_KEY": "sk-planted-openai-0123456789",
    "RAY_AUTH_TOKEN": "planted0ray0token0123456789",
}
IN_CONFIG = "planted-in-the-config"
OVERRIDES = [
    f"+actor_rollout_ref.rollout.engine_kwargs.vllm.api_key={IN_CONFIG}",
    f"+models.instruct.endpoint={{url: 'https://someone:{IN_CONFIG}@host/v1?api_key={IN_CONFIG}', model: m}}",
    f"+models.instruct.endpoint.extra={{headers: {{Authorization: 'Bearer {IN_CONFIG}'}}}}",
    # A key by its value alone, in a setting of an ordinary name.
    f"trainer.group_name=with-{PLANTED['OPENAI_API_KEY']}",
]


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)


def found_in(text: str) -> list[str]:
    return [secret for secret in (*PLANTED.values(), IN_CONFIG) if secret in text]


def found_below(folder: Path) -> dict[str, list[str]]:
    files = {file: file.read_bytes().decode("latin-1") for file in folder.rglob("*") if file.is_file()}
    assert files
    return {str(file.relative_to(folder)): found for file, text in files.items() if (found := found_in(text))}


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://me:pw@host/v1", f"https://{HIDDEN}@host/v1"),
        ("https://host/v1?api_key=abc&limit=3", f"https://host/v1?api_key={HIDDEN}&limit=3"),
        (
            "policies.long.rollout.engine_kwargs.vllm.api_key=abc",
            f"policies.long.rollout.engine_kwargs.vllm.api_key={HIDDEN}",
        ),
        ("Authorization: Bearer abc", f"Authorization: Bearer {HIDDEN}"),
        ("Authorization: Basic abc", f"Authorization: Basic {HIDDEN}"),
        ("x-api-key: abc, --api-key=def", f"x-api-key: {HIDDEN}, --api-key={HIDDEN}"),
        ("https://me:p@ss@host/a@b", f"https://{HIDDEN}@host/a@b"),
        ("{'hf_token': 'abc', 'x': 1}", f"{{'hf_token': '{HIDDEN}', 'x': 1}}"),
        ("team.max_episode_tokens=4096 and max_tokens: 5", "team.max_episode_tokens=4096 and max_tokens: 5"),
        ("a <think> token, 12 tokens/s, keys and ids", "a <think> token, 12 tokens/s, keys and ids"),
    ],
)
def test_what_is_hidden_of_a_text(text: str, clean: str) -> None:
    assert hide(text) == clean


@pytest.mark.parametrize("name", ["AWS_SECRET_KEY", "OPENAI_KEY", "PGPASSWORD", "DB_PASSPHRASE", "MY_PRIVATE_KEY"])
def test_the_name_of_a_variable_says_that_it_is_secret(name: str) -> None:
    assert hide("its value: correct-horse", {name: "correct-horse"}) == f"its value: {HIDDEN}"


def test_a_settings_name_says_that_it_is_secret_whatever_its_value() -> None:
    config = OmegaConf.create(
        {"api_key": 1234567890, "x-api-key": "abc", "secret_key": "abc", "hf_token": [12345678, None], "token": True}
    )
    assert shown(config) == {
        **{"api_key": HIDDEN, "x-api-key": HIDDEN, "secret_key": HIDDEN},
        **{"hf_token": [HIDDEN, None], "token": True},
    }


def test_short_values_and_ordinary_variables_are_left_alone() -> None:
    assert hide("1 of true", {"SOME_TOKEN": "true", "PATH": "1 of true"}) == "1 of true"


@pytest.mark.parametrize("name", ["local", "coldstart_qwen2.5_7b"])
def test_nothing_of_a_shipped_recipe_is_hidden(name: str) -> None:
    config = build_config(name)
    assert shown(config) == OmegaConf.to_container(config)


def test_config_dump_tracker_errors_and_logs_of_a_run_hold_no_planted_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr("sys.argv", ["longshort", "train", *OVERRIDES])
    folder = tmp_path / "run"
    arguments = [*OVERRIDES, "trainer.logger=[wandb, tensorboard]", f"trainer.default_local_dir={folder}"]
    config = build_config("local", arguments)
    assert len(found_in(str(OmegaConf.to_container(config)))) == 2, "they are there"

    def stop(config: Any, stages: Any = None) -> None:
        raise RuntimeError(f"{config.models.instruct.endpoint.url} {PLANTED['HF_TOKEN']}")

    monkeypatch.setattr("workers.team.start_ray", stop)

    async def start() -> None:
        with Display() as display:
            async with assembly.open_run(config, display):
                pass

    handler = logging.FileHandler(tmp_path / "log")
    handler.addFilter(HidingFilter())
    try:
        asyncio.run(start())
    except RuntimeError:
        logger = logging.getLogger("planted")
        logger.addHandler(handler)
        logger.exception("could not ask %s", config.models.instruct.endpoint.url)
        logger.removeHandler(handler)
    handler.close()
    with ExitStack() as stack:
        for tracker in make_trackers(config, folder, stack):
            tracker.log(1, {"accuracy": 0.5})
    assert "could not ask https" in (tmp_path / "log").read_text()
    assert (folder / "config.yaml").is_file() and list(folder.glob("wandb/offline-run-*/*.wandb"))
    assert found_below(tmp_path) == {}
    capfd.readouterr()


def test_printed_configurations_and_errors_hold_no_planted_secret(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--print-config", *OVERRIDES]) == 0
    assert main(["train", f"+policies.long.rollout.no_such.api_key=[{IN_CONFIG}"]) == 2
    captured = capsys.readouterr()
    assert HIDDEN in captured.out
    assert not found_in(captured.out + captured.err)


@pytest.mark.parametrize("kind", [RuntimeError, FileNotFoundError])
def test_a_traceback_of_what_nobody_expected_holds_no_planted_secret(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise kind(f"no answer from https://me:{IN_CONFIG}@host with {os.environ['HF_TOKEN']}")

    monkeypatch.setattr("longshort.status.show_status", fail)
    assert main(["status", "here"]) == 1
    captured = capsys.readouterr()
    assert "Traceback" in captured.err and f"{kind.__name__}: no answer from https://{HIDDEN}@host" in captured.err
    assert not found_in(captured.out + captured.err)


def test_a_run_with_hidden_settings_can_be_resumed(tmp_path: Path) -> None:
    config = build_config("local", [*OVERRIDES, f"data.train_files=['https://me:{IN_CONFIG}@host/a.json']"])
    (tmp_path / "config.yaml").write_text(hiding.as_yaml(config))
    refuse_changes(tmp_path, config)


def test_rays_runtime_environment_carries_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    from workers import team

    seen: list[dict[str, Any]] = []
    context = SimpleNamespace(gcs_address="127.0.0.1:6379", get_node_id=lambda: "n")
    nodes = [{"NodeID": "n", "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": 6380}]
    fake = SimpleNamespace(
        init=lambda **settings: seen.append(settings), get_runtime_context=lambda: context, nodes=lambda: nodes
    )
    monkeypatch.setattr("workers.team.ray", fake)
    monkeypatch.setattr("workers.team.HeadWatch", lambda *addresses: SimpleNamespace(close=lambda: None))
    for address in (None, "127.0.0.1:6379"):
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        if address:
            monkeypatch.setenv("RAY_ADDRESS", address)
        team.configure_environment("cpu")
        team.start_ray(build_config("local"), slots=1)
    assert len(seen) == 2 and not found_in(str(seen))
