"""A request to stop soon: the step under way is finished and saved, then the run ends and can be gone on with."""

from __future__ import annotations


class StoppedEarlyError(Exception):
    """A run that ended before its last step because it was asked to."""


class StopRequest:
    """Made once, by a signal; looked at between steps."""

    def __init__(self) -> None:
        self.made = False

    def make(self) -> None:
        """From now on the run ends after the step under way."""
        self.made = True
