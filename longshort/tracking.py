"""What a run leaves to read: metrics as JSON lines, and transcripts of sampled episodes."""

from __future__ import annotations

import json
import logging
import math
import random
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from longshort.episode import Episode

log = logging.getLogger(__name__)

# In the folder of a run.
METRICS = "metrics.jsonl"


class MetricsLog:
    """Appends to a file of metrics, one JSON object per line: ``{"step": 3, "accuracy": 0.5, "reward/mean": null}``.

    An existing file is continued. JSON has no NaN and no infinity: they are written as null, so that the key stays.
    """

    def __init__(self, path: str | Path) -> None:
        """Make the folder, and drop the last line of ``path`` where a crash left half of it."""
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            _mend_last_line(self._path)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one line; it is in the file when this returns."""
        assert "step" not in metrics, "the step is an argument, not a metric"
        line = json.dumps({"step": step, **{key: _finite(value) for key, value in metrics.items()}}, allow_nan=False)
        # Opening for each line leaves nothing in a buffer when the process is killed.
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """Every line in file order, null as NaN. A last line that is still being written is left out.

    A resumed run repeats the steps after its checkpoint: of several lines for a step, the last is the valid one.

    Raises:
        ValueError: a complete line is not a JSON object.
    """
    rows = []
    whole, _, _half = Path(path).read_text(encoding="utf-8", errors="replace").rpartition("\n")
    for number, line in enumerate(whole.split("\n") if whole else [], start=1):
        row = _json_object(line)
        if row is None:
            raise ValueError(f"{path}:{number} is not a JSON object: remove that line.")
        rows.append({key: math.nan if value is None else value for key, value in row.items()})
    return rows


class TranscriptLog:
    """Writes a sample of episodes every so many steps, for people to read.

    ``<dir>/transcripts/step-000010.md`` shows the sample.
    """

    def __init__(self, dir: str | Path, every: int = 10, count: int = 4) -> None:
        """``every`` is in steps, ``count`` in episodes per file; 0 for ``every`` writes nothing."""
        self._dir = Path(dir)
        self._every = every
        self._count = count

    def write(
        self, step: int, episodes: Sequence[Episode], rewards: Sequence[Mapping[str, float]] | None
    ) -> dict[str, str]:
        """Write the file of ``step`` where it is a multiple of ``every``; one mapping of ``rewards`` per episode.

        Returns the transcripts shown, by problem and sample; empty where nothing is written.
        """
        if not self._every or step % self._every:
            return {}
        parts = rewards if rewards is not None else [None] * len(episodes)
        pairs = list(zip(episodes, parts, strict=True))
        # Seeded by the step, so that a repeated step shows the same episodes.
        chosen = sorted(random.Random(step).sample(range(len(pairs)), min(self._count, len(pairs))))
        shown = {f"{episodes[i].problem.id}/{episodes[i].sample}": transcript(*pairs[i]) for i in chosen}
        sections = [f"# Step {step}: {len(chosen)} of {len(pairs)} episodes\n", *shown.values()]
        _write(self._dir / "transcripts" / f"step-{step:06d}.md", "\n".join(sections))
        return shown


def write_episodes(
    folder: str | Path, step: int, episodes: Sequence[Episode], scores: Sequence[float], **parts: Sequence[object]
) -> None:
    """``<folder>/<step>.jsonl``: all episodes of a step, one per line, as :meth:`Episode.from_json` reads them.

    Beside the episode's own keys a line has those of verl's rollout files (``input``, ``output``, ``gts``, ``score``,
    ``step``), and those of ``parts``, each one value per episode.
    """
    lines = []
    for i, (episode, score) in enumerate(zip(episodes, scores, strict=True)):
        row = {
            "input": episode.problem.question,
            "output": "".join(turn.text for turn in episode.turns),
            "gts": episode.problem.answer,
            "score": score,
            "step": step,
            **{name: values[i] for name, values in parts.items()},
            **asdict(episode),
        }
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    _write(Path(folder) / f"{step}.jsonl", "".join(lines))


def transcript(episode: Episode, rewards: Mapping[str, float] | None = None) -> str:
    """An episode as Markdown: question, gold answer, turns, outcome and reward parts.

    Texts stand unchanged in fences longer than any run of backticks in them; control characters other than tab and line
    feed appear as ``\\x1b``, so that no terminal obeys them.
    """
    problem = episode.problem
    source = f", {problem.source}" if problem.source else ""
    parts = [
        f"## {visible(problem.id)}, sample {episode.sample}{visible(source)}",
        f"### Question\n\n{_fenced(problem.question)}",
        f"### Gold answer\n\n{_fenced(problem.answer)}",
    ]
    for number, turn in enumerate(episode.turns, start=1):
        form = "well-formed" if turn.well_formed else "not well-formed"
        facts = f"{len(turn.token_ids)} tokens, {turn.finish_reason}, {form}"
        parts.append(f"### Turn {number}, {turn.role}: {facts}\n\n{_fenced(turn.text)}")
    roles = dict.fromkeys(turn.role for turn in episode.turns)
    shares = ", ".join(f"{role} {episode.tokens_of(role)}" for role in roles)
    parts.append(f"### Outcome: {episode.outcome}\n\n{episode.tokens} tokens" + (f" ({shares})" if shares else ""))
    if episode.error is not None:
        parts.append(_fenced(episode.error))
    if rewards:
        parts.append("### Reward\n\n" + "\n".join(f"- {name}: {value:.4g}" for name, value in rewards.items()))
    return "\n\n".join(parts) + "\n"


def visible(text: str) -> str:
    """``text`` with its control characters, tab and line feed excepted, spelt as ``\\x1b``."""
    return "".join(f"\\x{ord(char):02x}" if _is_control(char) else char for char in text)


def _is_control(char: str) -> bool:
    return char not in "\n\t" and unicodedata.category(char) == "Cc"


def _fenced(text: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{visible(text)}\n{fence}"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Half of a surrogate pair, which JSON data can hold, has no UTF-8; as "\ud800" it is also what JSON spells.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _finite(value: float) -> float | None:
    """A plain number of ``value``, which may be a NumPy or torch scalar; None where it is not finite."""
    if isinstance(value, int):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


def _mend_last_line(path: Path) -> None:
    content = path.read_bytes()
    complete = content.rfind(b"\n") + 1
    last = content[complete:]
    if not last:
        return
    if _json_object(last.decode("utf-8", errors="replace")) is not None:
        with path.open("ab") as file:
            file.write(b"\n")
        return
    log.warning("%s ended in half a line, which a crash left behind: dropped %d bytes.", path, len(last))
    with path.open("r+b") as file:
        file.truncate(complete)


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
