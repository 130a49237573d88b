"""Failures of the machinery, each naming the policy it happened to. They cross Ray, so they can be pickled."""

from __future__ import annotations


class PolicyFailedError(RuntimeError):
    """Something of ``policy`` is gone or went wrong; the run ends with its name."""

    part = "process"
    end = "died"

    def __init__(self, policy: str, cause: str) -> None:
        super().__init__(policy, cause)
        self.policy, self.cause = policy, cause

    def __str__(self) -> str:
        return f"a {self.part} of policy {self.policy!r} {self.end}: {self.cause}"


class EngineDiedError(PolicyFailedError):
    """A vLLM engine is gone."""

    part = "rollout engine"


class EngineNotStartedError(PolicyFailedError):
    """A vLLM engine could not be started."""

    part = "rollout engine"
    end = "did not start"


class WorkerDiedError(PolicyFailedError):
    """A training worker is gone."""

    part = "training worker"


class WorkerRaisedError(PolicyFailedError):
    """A training worker raised an error, as without memory on its device."""

    part = "training worker"
    end = "failed"
