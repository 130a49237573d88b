"""What can go wrong with a step."""

from __future__ import annotations

from pathlib import Path

# Lines of a log that an error shows.
TAIL = 5


class StepFailedError(RuntimeError):
    """A command ended with another code than 0."""

    def __init__(self, step: str, code: int, log: Path) -> None:
        super().__init__(step, code, log)
        self.step, self.code, self.log = step, code, log

    def __str__(self) -> str:
        tail = self.log.read_text(errors="replace").strip().splitlines()[-TAIL:]
        end = f" ({' / '.join(tail)})" if tail else ""
        return f"{self.step} ended with code {self.code}{end}; all of its output is in {self.log}"
