"""The machinery: Ray actors on verl and vLLM."""

import os

# Ray reads this when it is imported: without a cluster to join, a run's own Ray uses the loopback address only.
if not os.environ.get("RAY_ADDRESS"):
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
