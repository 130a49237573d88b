"""Grading with a hard time limit, in worker processes.

Concurrency: each of ``workers`` threads takes a worker process from a queue, writes one question to it, waits for the
reply line and puts it back. A thread waits for nothing but its own process; callers wait for threads, by ``await`` or
by blocking, from any thread and any event loop.

The limit is an interval timer that the worker sets on itself and leaves to its default action: the kernel ends the
process whatever it is doing, inside one long multiplication too. The parent sees the end of the pipe, calls it a
timeout and starts another worker when it next needs one. A worker whose parent is gone reads the end of its standard
input and exits, at the latest when its timer runs out.

The samples of a group often have the same answer, so one question is asked for all of them, and its verdict is
remembered. That a worker died over it is not: it may have been the machine.

Workers are started by command line rather than forked or spawned: a parent with threads, torch or Ray in it is not safe
to fork, and spawning would import the parent's ``__main__``, which a notebook does not have.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import queue
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from longshort.extraction import MAX_COMPARED, Extracted, extract_answer
from longshort.grading import Answer, Grade, GradeError, compare, gold_is_gradable, gold_text

# Far more than an honest answer takes; a hostile one fails to allocate instead of starving the machine.
_WORKER_MEMORY = 4 << 30
# Most verdicts that are remembered.
_VERDICTS = 16_384

# Whether the answer is right, and the error of a :class:`Grade`.
_Verdict = tuple[bool, GradeError | None]


class GradingPool:
    """Worker processes that grade; a context manager.

    Args:
        workers: processes, at least one. Each starts when first needed, in about a second.
        timeout: seconds that one answer may take, above zero. Starting a worker does not count.
    """

    def __init__(self, workers: int, timeout: float) -> None:
        if workers < 1:
            raise ValueError(f"workers is {workers}: a grading pool needs at least one worker process")
        if timeout <= 0:
            raise ValueError(f"timeout is {timeout}: give the seconds that one answer may take, such as 5.0")
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="grading")
        self._workers: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for _ in range(workers):
            self._workers.put(_Worker(timeout))
        self._size = workers
        # By answer and gold; callers of several threads share it.
        self._verdicts: dict[tuple[Extracted, str], Future[_Verdict]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> GradingPool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop what is queued, wait for what is running, end the workers. Blocks for at most one time limit."""
        self._executor.shutdown(cancel_futures=True)
        for _ in range(self._size):
            self._workers.get().stop()
        self._size = 0

    async def grade(self, response: str, answer: Answer) -> Grade:
        """:func:`longshort.grading.grade` within the time limit."""
        return await asyncio.wrap_future(self._begin(response, answer))

    def grade_many(self, pairs: Sequence[tuple[str, Answer]]) -> list[Grade]:
        """Grade ``(response, answer)`` pairs; grades come in the order of the pairs."""
        grades = [self._begin(response, answer) for response, answer in pairs]
        return [grade.result() for grade in grades]

    def gradable_many(self, answers: Sequence[Answer]) -> list[bool]:
        """:func:`longshort.grading.gold_is_gradable` for each answer, False where it takes longer than the limit."""
        questions = ({"gold": gold_text(answer)} for answer in answers)
        return [reply.get("gradable", False) for reply in self._executor.map(self._ask, questions)]

    def _begin(self, response: str, answer: Answer) -> Future[Grade]:
        """The grade to come. It is one caller's, who may cancel it, while others wait for the same verdict."""
        grade: Future[Grade] = Future()
        found = extract_answer(response)
        if found is None:
            grade.set_result(Grade(False, None))
            return grade

        def settle(verdict: Future[_Verdict]) -> None:
            if verdict.cancelled():
                grade.cancel()
            elif grade.set_running_or_notify_cancel():
                if failure := verdict.exception():
                    grade.set_exception(failure)
                else:
                    correct, error = verdict.result()
                    grade.set_result(Grade(correct, found.text, error))

        # Of an answer that is too long, one character too many tells enough.
        self._verdict(replace(found, text=found.text[: MAX_COMPARED + 1]), gold_text(answer)).add_done_callback(settle)
        return grade

    def _verdict(self, found: Extracted, gold: str) -> Future[_Verdict]:
        """The verdict to come, or one that is remembered."""
        question = (found, gold)
        with self._lock:
            if question not in self._verdicts:
                if len(self._verdicts) == _VERDICTS:
                    self._verdicts.pop(next(iter(self._verdicts)))
                self._verdicts[question] = self._executor.submit(self._compare, *question)
            return self._verdicts[question]

    def _compare(self, found: Extracted, gold: str) -> _Verdict:
        """:func:`longshort.grading.compare` in a worker."""
        reply: dict[str, Any] = {}
        try:
            reply = self._ask({"gold": gold, "text": found.text, "boxed": found.boxed})
        finally:
            if "correct" not in reply:
                with self._lock:
                    self._verdicts.pop((found, gold), None)
        return reply.get("correct", False), reply["error"]

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        worker = self._workers.get()
        try:
            return worker.ask(question)
        finally:
            self._workers.put(worker)


class _Worker:
    """The parent's end of one worker process, which may come and go. One thread at a time uses it."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._process: subprocess.Popen[str] | None = None

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The worker's reply, or the ``error`` of a :class:`Grade` if it died over the question."""
        if self._process is None or self._process.poll() is not None:
            self._process = self._start()
        process = self._process
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if line:
            return json.loads(line)
        self.stop()
        return {"error": "timeout" if process.returncode == -signal.SIGALRM else "crash"}

    def stop(self) -> None:
        """End the process and wait until it is gone."""
        if self._process is not None:
            # Leaving the context closes the pipes, which ends the worker, and waits.
            with self._process:
                pass
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        root = Path(__file__).parents[1]
        process = subprocess.Popen(
            [sys.executable, "-c", "from longshort.grading_pool import _serve; _serve()", str(self._timeout)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            # What this process can import may not be what a new interpreter finds, for example in a Ray actor.
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *map(os.path.abspath, sys.path)])},
        )
        assert process.stdout
        if not process.stdout.readline():
            raise RuntimeError(f"a grading worker ended with status {process.wait()} before it was ready; see stderr")
        return process


def _serve() -> None:
    """The worker: answers the questions on standard input, one JSON line each. ``argv[1]`` is the time limit."""
    timeout = float(sys.argv[1])
    # An interrupt and a request to stop, which may reach every process of a run, are for the parent. The timer must end
    # this process though the parent may have blocked its signal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    memory = _WORKER_MEMORY if most == resource.RLIM_INFINITY else min(most, _WORKER_MEMORY)
    resource.setrlimit(resource.RLIMIT_AS, (memory, most))
    # Replies get a pipe of their own: whatever the libraries print goes to the error output.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # The first parse builds tables that later ones share; it should count against nobody's limit.
    compare(Extracted(r"\frac{2}{4}", boxed=True), r"\frac{1}{2}")
    # The collector would visit all of sympy's objects again and again.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    replies.write("ready\n")
    replies.flush()
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, timeout)
        reply = _reply(json.loads(line))
        signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _reply(question: dict[str, Any]) -> dict[str, Any]:
    if "text" not in question:
        return {"gradable": gold_is_gradable(question["gold"])}
    correct, error = compare(Extracted(question["text"], question["boxed"]), question["gold"])
    return {"correct": correct, "error": error}
