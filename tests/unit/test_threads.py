"""Blocking calls beside coroutines.

Not proved here: that Ray's calls end when their actors are killed; the integration tests do.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from longshort.threads import in_thread

NEVER_ENDS = """
import asyncio, threading
from longshort.threads import in_thread
async def main():
    in_thread(threading.Event().wait, "waits for ever")
    await asyncio.sleep(0)
asyncio.run(main())
"""


async def test_what_the_call_returns_or_raises_comes_back() -> None:
    assert await in_thread(lambda: 7, "seven") == 7
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0, "nothing")


async def test_nobody_waits_for_a_call_that_was_given_up() -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(in_thread(lambda: asyncio.run(asyncio.sleep(0.2)), "late"), 0.01)
    # Its answer comes to nobody, which is no error.
    await asyncio.sleep(0.3)


def test_a_call_that_never_returns_does_not_keep_the_process() -> None:
    assert subprocess.run([sys.executable, "-c", NEVER_ENDS], timeout=60, check=False).returncode == 0
