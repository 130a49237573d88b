"""Wait until a Ray cluster is whole: ``python -m workers.cluster --timeout 300 node1 node2``.

Joins the cluster of ``RAY_ADDRESS``. Exit code 0 once every named node is there; 1 after the timeout, with a sentence
that names those which are not.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence


def missing(
    expected: Sequence[str], there: Callable[[], Iterable[str]], timeout_s: float, pause_s: float = 2.0
) -> list[str]:
    """Names of ``expected`` that ``there`` does not give within ``timeout_s``, in order."""
    deadline = time.monotonic() + timeout_s
    while True:
        known = set(there())
        absent = [name for name in expected if name not in known]
        if not absent or time.monotonic() >= deadline:
            return absent
        time.sleep(pause_s)


def alive_nodes() -> list[str]:
    """Names of the cluster's nodes, as ``ray start --node-name`` gave them."""
    import ray

    return [node["NodeName"] for node in ray.nodes() if node["Alive"]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workers.cluster", description=__doc__)
    parser.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="by default 300")
    parser.add_argument("nodes", nargs="+", metavar="NODE", help="as named by ray start --node-name")
    options = parser.parse_args(arguments)
    import ray

    ray.init(address="auto", log_to_driver=False, logging_level="warning")
    absent = missing(options.nodes, alive_nodes, options.timeout)
    ray.shutdown()
    if absent:
        sys.stderr.write(
            f"{len(absent)} of {len(options.nodes)} nodes did not join Ray within {options.timeout:.0f} s: "
            f"{', '.join(absent)}; their output above says why\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
