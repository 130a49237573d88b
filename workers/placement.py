"""Device slots for policies: Ray placement groups through verl's resource pools.

``colocated``: every policy uses all slots, and engines take turns with training. ``split``: each policy has its own.
On CPU the slots are logical (``ray.init(num_gpus=…)``), so that the same code places both.
"""

from __future__ import annotations

from verl.single_controller.ray import RayResourcePool

# Processes that share a slot: per policy a worker, its engine's adapter and one to spare for a helper task.
PROCESSES_PER_POLICY = 3


def make_pools(
    policies: list[str], placement: str, n_gpus_per_node: dict[str, int], nnodes: int
) -> dict[str, RayResourcePool]:
    """One pool per policy; the same pool for all where ``placement`` is ``colocated``."""
    if placement == "colocated":
        sizes = set(n_gpus_per_node.values())
        assert len(sizes) == 1, "colocated policies share the same slots"
        shared = _pool("longshort", sizes.pop(), nnodes, PROCESSES_PER_POLICY * len(policies))
        return dict.fromkeys(policies, shared)
    return {name: _pool(name, n_gpus_per_node[name], nnodes, PROCESSES_PER_POLICY) for name in policies}


def _pool(name: str, n_gpus_per_node: int, nnodes: int, processes: int) -> RayResourcePool:
    return RayResourcePool([n_gpus_per_node] * nnodes, use_gpu=True, name_prefix=name, max_colocate_count=processes)
