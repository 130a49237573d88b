"""Blocking calls beside coroutines, in threads that keep no process from ending."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

Result = TypeVar("Result")


def in_thread(call: Callable[[], Result], name: str) -> asyncio.Future[Result]:
    """What ``call`` returns or raises.

    Unlike one of an executor, its thread is not waited for when the event loop or the process ends, so a call that
    never returns keeps neither.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Result] = loop.create_future()

    def work() -> None:
        try:
            result = call()
        except BaseException as error:  # it is the caller's to handle
            tell(answer.set_exception, error)
        else:
            tell(answer.set_result, result)

    def tell(say: Callable[[Any], None], what: Any) -> None:
        # Nobody may be there any more.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if answer.done() else say(what))

    threading.Thread(target=work, name=name, daemon=True).start()
    return answer
