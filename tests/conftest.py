"""Every test runs on CPU; verl and vLLM read that from the environment when they are imported."""

from workers.team import configure_environment

configure_environment("cpu")
