"""Unit tests run on CPU, and hypothesis without deadlines: how long an example takes says more about the machine."""

from hypothesis import settings

from workers.team import configure_environment

# verl and vLLM read it when they are imported.
configure_environment("cpu")

settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
