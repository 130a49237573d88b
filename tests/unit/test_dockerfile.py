"""The image for GPU machines: what it is built from, and who runs in it.

Not proven here: that it builds, and that a run starts in it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "launch" / "Dockerfile"
SETUP = (ROOT / "setup.py").read_text()


def instructions() -> list[tuple[str, str]]:
    """Instructions with their arguments, continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(name, " ".join(rest.split())) for name, rest in (line.split(maxsplit=1) for line in joined.splitlines())]


def of(kind: str) -> list[str]:
    return [rest for name, rest in instructions() if name == kind]


def extra(name: str) -> list[str]:
    """Requirements of an extra in setup.py."""
    (found,) = re.findall(rf'"{name}": \[(.*?)\]', SETUP, re.DOTALL)
    return re.findall(r'"([^"]+)"', found)


def test_the_linter_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.is_file():
        pytest.skip("hadolint is not installed; the extra dev has it")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_base_is_one_version_of_cuda_13() -> None:
    (base,) = of("FROM")
    assert re.fullmatch(r"nvidia/cuda:13\.\d+\.\d+-devel-ubuntu24\.04", base)


def test_every_version_comes_from_setup_py_and_none_is_repeated() -> None:
    commands = " ".join(of("RUN"))
    assert "/opt/longshort[gpu]" in commands
    assert "/opt/longshort[flash-attn]" in commands
    packages = {re.split(r"[=<>]", requirement)[0] for name in ("gpu", "flash-attn") for requirement in extra(name)}
    assert {"torch", "vllm", "transformers", "flash-attn"} <= packages
    assert not [package for package in packages if re.search(rf"(?<![\w-]){package}\s*[=<>~]", commands)]


def test_it_runs_as_a_user_without_privileges() -> None:
    assert of("USER") == ["10001"]
    names = [name for name, _ in instructions()]
    assert names.index("USER") < names.index("ENTRYPOINT")


def test_nobodys_tokens_or_outputs_are_built_in() -> None:
    settings = " ".join([*of("ENV"), *of("ARG")])
    assert not re.search(r"token|secret|password|api_?key", settings, re.IGNORECASE)
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert patterns[0] == "*", "everything is left out that is not let in"
    let_in = {pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")}
    assert let_in == {"LICENSE", "README.md", "configs", "longshort", "pyproject.toml", "setup.py", "workers"}
