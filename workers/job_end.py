"""How a Ray job ended: ``python -m workers.job_end NAME`` waits for its end and exits with its exit code.

The cluster's dashboard is that of ``RAY_API_SERVER_ADDRESS``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from longshort.threads import in_thread

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

STOPPED, UNKNOWN = 143, 1
# Seconds for one answer, which Ray's client has no limit for, and without any, after which the cluster counts as lost.
ANSWER_S, PATIENCE_S = 15.0, 60.0


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
    parser = argparse.ArgumentParser(prog="python -m workers.job_end", description=__doc__)
    parser.add_argument("name")
    name = parser.parse_args(arguments).name
    info = asyncio.run(_end_of(name))
    if info is None:
        address = os.environ.get("RAY_API_SERVER_ADDRESS", "")
        sys.stderr.write(
            f"job {name}: the cluster at {address} does not answer; the job may go on: ray job status {name}\n"
        )
        return UNKNOWN
    code = exit_code(str(info.status.value), info.driver_exit_code)
    if code:
        sys.stderr.write(f"job {name}: {info.status.value}, exit code {code}: {info.message}\n")
    return code


async def _end_of(name: str) -> JobDetails | None:
    """What Ray says of the job once it is over; None where it says nothing for ``PATIENCE_S``."""
    from ray.exceptions import RayError

    answered = time.monotonic()
    while time.monotonic() < answered + PATIENCE_S:
        try:
            info = await asyncio.wait_for(in_thread(partial(_ask, name), "job end"), ANSWER_S)
        except (OSError, RuntimeError, RayError):
            # Errors of requests and the time-out are OSErrors; the others are answers that say nothing of the job.
            pass
        else:
            if info.status.is_terminal():
                return info
            answered = time.monotonic()
        await asyncio.sleep(1)
    return None


def _ask(name: str) -> JobDetails:
    from ray.job_submission import JobSubmissionClient

    return JobSubmissionClient().get_job_info(name)


if __name__ == "__main__":
    sys.exit(main())
