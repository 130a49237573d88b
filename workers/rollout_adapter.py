"""The trainer's side of weight sync: verl's server adapter under names of this policy's own."""

from __future__ import annotations

import os
from typing import Any

from verl.workers.rollout.vllm_rollout.vllm_rollout import ServerAdapter

from workers.naming import server_prefix, weight_socket


class PolicyServerAdapter(ServerAdapter):
    """Finds its policy by the worker group's name prefix (``WG_PREFIX``)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.policy = os.environ["WG_PREFIX"].split(".")[0]
        local_rank = self.rollout_rank % int(os.environ["RAY_LOCAL_WORLD_SIZE"])
        self.zmq_handle = f"{weight_socket(self.policy, self.replica_rank)}{local_rank}"

    def _get_server_name_prefix(self) -> str:
        return server_prefix(self.policy)
