"""Failures of the machinery, each naming the policy it happened to. They cross Ray, so they can be pickled."""

from __future__ import annotations


class PolicyFailedError(RuntimeError):
    """A process of ``policy`` is gone; the run ends with its name."""

    part = "process"

    def __init__(self, policy: str, cause: str) -> None:
        super().__init__(policy, cause)
        self.policy, self.cause = policy, cause

    def __str__(self) -> str:
        return f"a {self.part} of policy {self.policy!r} died: {self.cause}"


class EngineDiedError(PolicyFailedError):
    """A vLLM engine is gone."""

    part = "rollout engine"


class WorkerDiedError(PolicyFailedError):
    """A training worker is gone."""

    part = "training worker"
