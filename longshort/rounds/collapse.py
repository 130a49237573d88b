"""A watch for collapse: a round that buys short answers with wrong ones, or forgets how to write.

Fed with the metrics of each training step (:mod:`longshort.metrics`), it looks at means over the last steps and says
what is wrong, in figures. It decides nothing: who runs the round warns, stops, or multiplies mu by ``mu_scale``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal, get_args

from longshort.policy_checks import choice, count

Action = Literal["warn", "stop", "lower_mu", "off"]

ACCURACY, TOKENS, MALFORMED = "accuracy", "tokens_per_episode", "outcome/malformed"


@dataclass(frozen=True, slots=True)
class CollapseSettings:
    """What counts as a collapse, and what follows; keys ``guard.*``.

    Attributes:
        action: what the caller shall do; ``off`` looks at nothing.
        window: steps that each figure is a mean of; nothing is said before there are as many.
        accuracy_drop: share of episodes, from 0 to 1: training accuracy fell by more than this below the round's best,
            while episodes became shorter. 1 never happens.
        min_entropy: nats: a role's mean token entropy is below this. None, or 0, looks at no entropy. It is measured
            only for roles that learn, and not in bypass mode.
        min_tokens: mean tokens of an episode are below this. 0 never happens.
        max_malformed: share, from 0 to 1: more of the episodes end malformed, or more of a role's turns break the
            template, those that hit their cap left out. 1 never happens.
        mu_factor: from 0 to less than 1; ``lower_mu`` multiplies mu by it with every alarm.
        cooldown: steps of silence after an alarm.

    Raises:
        ValueError: a value outside its range.
    """

    action: Action = "warn"
    window: int = 5
    accuracy_drop: float = 0.1
    min_entropy: float | None = 0.01
    min_tokens: float = 8.0
    max_malformed: float = 0.5
    mu_factor: float = 0.5
    cooldown: int = 10

    def __post_init__(self) -> None:
        if self.action is False:
            raise ValueError('guard.action=false is how YAML reads off; write "off", in quotes')
        choice("guard.action", self.action, get_args(Action))
        count("guard.window", self.window)
        count("guard.cooldown", self.cooldown, least=0)
        _within("accuracy_drop", self.accuracy_drop, "a share above 0 and up to 1", lambda x: 0 < x <= 1)
        _within("min_tokens", self.min_tokens, "a number of tokens, 0 or more", lambda x: 0 <= x < float("inf"))
        _within("max_malformed", self.max_malformed, "a share from 0 to 1", lambda x: 0 <= x <= 1)
        _within("mu_factor", self.mu_factor, "a factor from 0 to less than 1", lambda x: 0 <= x < 1)
        if self.min_entropy is not None:
            _within("min_entropy", self.min_entropy, "nats, 0 or more, or null", lambda x: 0 <= x < float("inf"))


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something collapses.

    Attributes:
        step: the last step that was looked at.
        signs: sentences with figures and the key that they passed, at least one.
        action: as in the settings.
    """

    step: int
    signs: tuple[str, ...]
    action: Action


@dataclass(frozen=True, slots=True)
class _Span:
    """Figures of the steps from ``first`` to ``last``: of one step as measured, of several their means."""

    first: int
    last: int
    figures: dict[str, float]

    def __str__(self) -> str:
        return f"step {self.last}" if self.first == self.last else f"steps {self.first} to {self.last}"


class CollapseWatch:
    """Watches one round at a time; :meth:`reset` begins the next."""

    def __init__(self, settings: CollapseSettings) -> None:
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        """Forget the round: its best accuracy, its silence and its lowerings of mu."""
        self._recent: deque[_Span] = deque(maxlen=self.settings.window)
        self._best: _Span | None = None
        self._spoke: int | None = None
        self._mu_scale = 1.0

    @property
    def mu_scale(self) -> float:
        """What mu is to be multiplied by: the product of the round's lowerings so far, 1 before the first."""
        return self._mu_scale

    def observe(self, step: int, metrics: Mapping[str, float]) -> Alarm | None:
        """Take the metrics of ``step``; an alarm where there is a sign and no silence.

        While a sign lasts, it is said again after each silence, and ``lower_mu`` lowers again.
        """
        if self.settings.action == "off":
            return None
        self._recent.append(_Span(step, step, _watched(metrics)))
        if len(self._recent) < self.settings.window:
            return None
        now = _mean(self._recent)
        # Of equally good spans the later one: what came before it did no harm.
        if self._best is None or now.figures[ACCURACY] >= self._best.figures[ACCURACY]:
            self._best = now
        signs = tuple(_signs(now, self._best, self.settings))
        if not signs or self._is_silent(step):
            return None
        self._spoke = step
        if self.settings.action == "lower_mu":
            self._mu_scale *= self.settings.mu_factor
        return Alarm(step, signs, self.settings.action)

    def _is_silent(self, step: int) -> bool:
        return self._spoke is not None and step - self._spoke <= self.settings.cooldown

    def state_dict(self) -> dict[str, Any]:
        """All that the next alarms depend on, beside the settings; JSON."""
        return {
            "recent": [asdict(span) for span in self._recent],
            "best": None if self._best is None else asdict(self._best),
            "spoke": self._spoke,
            "mu_scale": self._mu_scale,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`; of a longer window the last steps count."""
        self.reset()
        self._recent.extend(_Span(**span) for span in state["recent"])
        self._best = None if state["best"] is None else _Span(**state["best"])
        self._spoke, self._mu_scale = state["spoke"], state["mu_scale"]


def _watched(metrics: Mapping[str, float]) -> dict[str, float]:
    """The figures that signs are made of.

    Of the keys ``<role>/<name>`` those with one slash: what validation and verl report has more.
    """
    figures = {name: float(metrics[name]) for name in (ACCURACY, TOKENS, MALFORMED)}
    for key, value in metrics.items():
        role, _, name = key.partition("/")
        if name == "entropy":
            figures[key] = float(value)
        # A role that never spoke has a share of 0, of nothing.
        if name == "well_formed_turns" and metrics.get(f"{role}/turns", 1.0) > 0:
            # A turn at its cap has no closing tag, but it is too long rather than broken.
            figures[f"{role}/malformed_turns"] = max(0.0, 1 - value - metrics.get(f"{role}/cut_turns", 0.0))
    return figures


def _mean(spans: deque[_Span]) -> _Span:
    """Means over all spans of the figures that each of them has."""
    names = [name for name in spans[0].figures if all(name in span.figures for span in spans)]
    return _Span(spans[0].first, spans[-1].last, {name: fmean(span.figures[name] for span in spans) for name in names})


def _signs(now: _Span, best: _Span, settings: CollapseSettings) -> Iterator[str]:
    figures, then = now.figures, best.figures
    fallen = then[ACCURACY] - figures[ACCURACY]
    if fallen > settings.accuracy_drop and figures[TOKENS] < then[TOKENS]:
        yield (
            f"accuracy fell from {then[ACCURACY]:.3f} ({best}) to {figures[ACCURACY]:.3f} ({now}), by more than "
            f"guard.accuracy_drop={settings.accuracy_drop}, while tokens per episode fell from {then[TOKENS]:.1f} to "
            f"{figures[TOKENS]:.1f}"
        )
    if figures[TOKENS] < settings.min_tokens:
        yield f"episodes have {figures[TOKENS]:.1f} tokens ({now}), fewer than guard.min_tokens={settings.min_tokens}"
    most = f"more than guard.max_malformed={settings.max_malformed}"
    if figures[MALFORMED] > settings.max_malformed:
        yield f"a share of {figures[MALFORMED]:.3f} of the episodes ends malformed ({now}), {most}"
    for key, value in figures.items():
        role, _, name = key.partition("/")
        if name == "malformed_turns" and value > settings.max_malformed:
            yield f"a share of {value:.3f} of the turns of {role} breaks the template ({now}), {most}"
        if name == "entropy" and settings.min_entropy is not None and value < settings.min_entropy:
            least = f"less than guard.min_entropy={settings.min_entropy}"
            yield f"the tokens of {role} have {value:.2g} nats of entropy ({now}), {least}"


def _within(name: str, value: object, wanted: str, fits: Callable[[float], bool]) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not fits(value):
        raise ValueError(f"guard.{name}={value} is not {wanted}; give one")
