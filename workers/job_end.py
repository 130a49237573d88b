"""How a Ray job ended: ``python -m workers.job_end NAME`` waits for its end and exits with its exit code.

The cluster's dashboard is that of ``RAY_API_SERVER_ADDRESS``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

STOPPED, UNKNOWN = 143, 1


def exit_code(status: str, driver_exit_code: int | None) -> int:
    """Of the shell: a signal that ended the driver counts as 128 + its number."""
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED":
        return STOPPED
    if driver_exit_code is None or driver_exit_code == 0:
        return UNKNOWN
    return 128 - driver_exit_code if driver_exit_code < 0 else driver_exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    from ray.job_submission import JobSubmissionClient

    parser = argparse.ArgumentParser(prog="python -m workers.job_end", description=__doc__)
    parser.add_argument("name")
    name = parser.parse_args(arguments).name
    client = JobSubmissionClient()
    while not (info := client.get_job_info(name)).status.is_terminal():
        time.sleep(1)
    code = exit_code(str(info.status.value), info.driver_exit_code)
    if code:
        sys.stderr.write(f"job {name}: {info.status.value}, exit code {code}: {info.message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
