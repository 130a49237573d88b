"""Device slots for policies: Ray placement groups through verl's resource pools.

``colocated``: every policy uses all slots, and engines take turns with training. ``split``: each policy has its own.
On CPU the slots are logical (``ray.init(num_gpus=…)``), so that the same code places both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import ray
from verl.single_controller.ray import RayResourcePool
from verl.utils.device import get_device_name, get_resource_name

# Processes that share a slot: per policy a worker, its engine's adapter and one to spare for a helper task.
PROCESSES_PER_POLICY = 3


def device_slots(placement: str, n_gpus_per_node: Iterable[int]) -> int:
    """Devices of one node that the policies need together."""
    counts = list(n_gpus_per_node)
    return max(counts) if placement == "colocated" else sum(counts)


def make_pools(
    policies: list[str], placement: str, n_gpus_per_node: dict[str, int], nnodes: int
) -> dict[str, RayResourcePool]:
    """One pool per policy, reserved in Ray; the same pool for all where ``placement`` is ``colocated``.

    Raises:
        ValueError: Ray has too few devices or CPUs, so that the reservation would wait for ever.
    """
    check_resources(placement, n_gpus_per_node, nnodes, ray.cluster_resources())
    check_nodes(n_gpus_per_node, nnodes, [node["Resources"] for node in ray.nodes() if node["Alive"]])
    if placement == "colocated":
        sizes = set(n_gpus_per_node.values())
        assert len(sizes) == 1, "colocated policies share the same slots"
        shared = _pool("longshort", sizes.pop(), nnodes, PROCESSES_PER_POLICY * len(policies))
        return dict.fromkeys(policies, shared)
    return {name: _pool(name, n_gpus_per_node[name], nnodes, PROCESSES_PER_POLICY) for name in policies}


def _pool(name: str, n_gpus_per_node: int, nnodes: int, processes: int) -> RayResourcePool:
    pool = RayResourcePool([n_gpus_per_node] * nnodes, use_gpu=True, name_prefix=name, max_colocate_count=processes)
    # Policies start their workers beside each other; two that find a shared pool unreserved would each reserve it.
    pool.get_placement_groups(device_name=get_device_name())
    return pool


def check_resources(
    placement: str, n_gpus_per_node: Mapping[str, int], nnodes: int, resources: Mapping[str, float]
) -> None:
    """Raise ``ValueError`` where Ray has too few devices or CPUs, so that a reservation would wait for ever."""
    devices = device_slots(placement, n_gpus_per_node.values()) * nnodes
    # Every process on a slot takes a CPU, and so does an engine's server while Ray places it.
    cpus = (PROCESSES_PER_POLICY * sum(n_gpus_per_node.values()) + 1) * nnodes
    for kind, unit, needed in ((get_resource_name(), "devices", devices), ("CPU", "CPUs", cpus)):
        if needed > (there := int(resources.get(kind, 0))):
            raise ValueError(
                f"placement.n_gpus_per_node={dict(n_gpus_per_node)} with placement.mode={placement} and "
                f"trainer.nnodes={nnodes} needs {needed} {unit}, but Ray has {there}; lower it or give Ray more"
            )


def check_nodes(n_gpus_per_node: Mapping[str, int], nnodes: int, nodes: Sequence[Mapping[str, float]]) -> None:
    """Raise ``ValueError`` where devices are enough in all, but not together on a node.

    Necessary, not sufficient: policies are looked at one by one.
    """
    kind = get_resource_name()
    devices = [int(node.get(kind, 0)) for node in nodes]
    for name, count in n_gpus_per_node.items():
        if sum(there // count for there in devices) < nnodes:
            raise ValueError(
                f"placement.n_gpus_per_node.{name}={count} with trainer.nnodes={nnodes} asks for {count} devices on "
                f"each of {nnodes} nodes, but the nodes of the cluster have {devices}; lower it or give Ray other nodes"
            )
