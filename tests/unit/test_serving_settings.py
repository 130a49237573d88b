"""Settings of a server: what is refused before anything starts."""

from __future__ import annotations

import socket

import pytest
from serving_fakes import served

from longshort.cli import main
from longshort.serving.settings import KEY, ServingSettings, api_key, is_loopback, read_settings


def test_settings_are_typed_and_nested() -> None:
    read = read_settings(["port=9000", "long.tensor_parallel_size=2", "replicas.long=3", "engine.seed=1", "name=x"])
    assert (read.port, read.long, read.engine, read.name) == (9000, {"tensor_parallel_size": 2}, {"seed": 1}, "x")
    assert read.replicas == {"long": 3, "short": 1}


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("prot=1", "sets prot, which is unknown; the keys are host, port"),
        ("port=many", "port=many: Value 'many'"),
        ("port=70000", "is no port"),
        ("port=-1", "port=-1 is too little; give at least 0"),
        ("max_requests=0", "max_requests=0 is too little"),
        ("device=tpu", "choose auto, cpu or cuda"),
        ("replicas.short=0", "leaves nobody to speak"),
        ("replicas.short=some", "Value 'some'"),
    ],
)
def test_a_bad_setting_is_named(override: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_settings([override])


def test_other_machines_are_let_in_with_a_key_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    assert api_key(ServingSettings()) is None
    with pytest.raises(ValueError, match=f"host=0.0.0.0 lets other machines in; set {KEY}"):
        api_key(ServingSettings(host="0.0.0.0"))
    monkeypatch.setenv(KEY, "secret")
    assert api_key(ServingSettings(host="0.0.0.0")) == "secret"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *[(host, True) for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9")],
        *[(host, False) for host in ("0.0.0.0", "::", "example.org", "10.0.0.1")],
    ],
)
def test_loopback_is_known(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port={port} cannot be listened on .*; choose another port"):
            async with served(**{"port": port}):
                pass


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["serve", "playground", "host=0.0.0.0"], "lets other machines in"),
        (["serve", "/nowhere", "device=cpu"], "/nowhere is no pair"),
        (["serve", "playground", "device=cpu", "max_model_len=5000"], "is longer than the 1024 of"),
        (["chat", "playground", "nothing=1"], "which is unknown"),
        (["export", "/nowhere", "/tmp/out"], "/nowhere holds no run"),
    ],
)
def test_the_command_line_says_it_in_one_sentence(
    arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_only_a_cluster_scales() -> None:
    read = read_settings(["cluster=true", "replicas.long=2", "max_replicas.long=4"])
    assert read.max_replicas == {"long": 4}
    with pytest.raises(ValueError, match=r"max_replicas.long=4 needs a cluster to scale on; set cluster=true"):
        read_settings(["max_replicas.long=4"])
    with pytest.raises(ValueError, match=r"is less than replicas\.long"):
        read_settings(["cluster=true", "replicas.long=4", "max_replicas.long=2"])
