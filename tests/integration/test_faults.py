"""Some faults of ``python -m tests.faults`` on the real stack; ``make test-faults`` injects a hundred.

Not proved here: faults of GPUs and of networks between hosts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.faults.processes import in_a_session

LIMIT_S = 1200


@pytest.mark.timeout(LIMIT_S + 60)
def test_engines_that_are_killed_at_random_moments_leave_nothing_behind() -> None:
    command = [sys.executable, "-m", "tests.faults", "--only", "engine killed", "--count", "2"]
    done = in_a_session(command, Path(__file__).parents[2], LIMIT_S)
    summary = json.loads(done.stdout.splitlines()[-1])
    expected = {"injected": 2, "as_expected": 2, "orphans": 0, "listening_beyond_loopback": 0, "secrets_found": 0}
    assert (summary, done.returncode) == (expected, 0), done.stderr[-3000:]
