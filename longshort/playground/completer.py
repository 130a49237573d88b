"""A program that completes short thoughts on the playground, where no tiny model writes JSON."""

from __future__ import annotations

from collections.abc import Sequence

from longshort.episode import Problem
from longshort.playground.corpus import LINE, boxed, line_of
from longshort.playground.problems import Step, steps_of
from longshort.thoughts.completer import Completed
from longshort.thoughts.segments import Gap, Segment


class ArithmeticCompleter:
    """Fills each gap with the steps that are missing there, and the last one with the answer too.

    It sees what a model is shown: the problem and the kept thoughts, from whose results, right or wrong, it goes on.
    Where a gap holds no step that is missing, it says the value so far.

    Example: for ``7+5*3-4`` and the kept thought ``7+5=12``, the gap is ``12*3=36⏎36-4=32⏎\\boxed{32}``.
    """

    async def complete(self, problem: Problem, segments: Sequence[Segment]) -> Completed:
        return Completed(tuple(_gaps(problem, segments)))


def _gaps(problem: Problem, segments: Sequence[Segment]) -> list[str]:
    steps = steps_of(problem.question)
    texts, done, value = [], 0, steps[0][0]
    for place, segment in enumerate(segments):
        if not isinstance(segment, Gap):
            done, value = _follow(segment.text, steps, done, value)
            continue
        last = place == len(segments) - 1
        until = len(steps) if last else _begins(segments[place + 1], steps, done)
        lines = []
        while done < until:
            _, operator, operand, _ = steps[done]
            (step,) = steps_of(f"{value}{operator}{operand}")
            lines.append(line_of(step))
            done, value = done + 1, step[-1]
        if last:
            lines.append(boxed(value))
        texts.append("\n".join(lines or [f"so {value}"]))
    return texts


def _follow(text: str, steps: Sequence[Step], done: int, value: int) -> tuple[int, int]:
    """Steps done and value reached after ``text``: each line that applies the next operation counts."""
    for _, operator, operand, after in LINE.findall(text):
        if done < len(steps) and (operator, int(operand)) == steps[done][1:3]:
            done, value = done + 1, int(after)
    return done, value


def _begins(segment: Segment, steps: Sequence[Step], done: int) -> int:
    """The step that a kept thought begins with; ``done`` where it only repeats."""
    assert not isinstance(segment, Gap), "kept thoughts and gaps come by turns"
    for _, operator, operand, _ in LINE.findall(segment.text):
        for place in range(done, len(steps)):
            if (operator, int(operand)) == steps[place][1:3]:
                return place
        break
    return done
