"""What ``/metrics`` says, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from longshort.serving.play import Played

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class ServingMetrics:
    """Counts of one server; a registry of its own, so that there can be several in a process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("longshort_requests", "Requests by HTTP status.", ["status"], registry=registry)
        self.in_flight = Gauge("longshort_choices_in_flight", "Choices that are played now.", registry=registry)
        self.abandoned = Counter("longshort_abandoned", "Requests whose client went away.", registry=registry)
        self.outcomes = Counter("longshort_outcomes", "Choices by how they ended.", ["outcome"], registry=registry)
        self.tokens = Counter("longshort_completion_tokens", "Tokens sampled.", ["role"], registry=registry)
        self.read = Counter("longshort_prompt_tokens", "Tokens read, over all turns.", ["role"], registry=registry)
        self.cached = Counter(
            "longshort_cached_tokens", "Read tokens out of prefix caches.", ["role"], registry=registry
        )
        self.turn_seconds = Histogram(
            "longshort_turn_seconds", "Time of a turn.", ["role"], registry=registry, buckets=SECONDS
        )
        self.first_token_seconds = Histogram(
            "longshort_first_token_seconds",
            "From a choice's start to its first token.",
            registry=registry,
            buckets=SECONDS,
        )
        self.seconds = Histogram(
            "longshort_request_seconds", "Time of an answered request.", registry=registry, buckets=SECONDS
        )
        self.engines = Gauge("longshort_engines_alive", "Engines that can serve.", ["role"], registry=registry)
        self.restarts = Counter("longshort_engine_restarts", "Engines started again.", ["role"], registry=registry)

    def count(self, played: Played) -> None:
        """A choice is over."""
        self.outcomes.labels(played.episode.outcome).inc()
        for number, each in enumerate(played.turns):
            turn = each.turn
            self.tokens.labels(turn.role).inc(len(turn.token_ids))
            self.read.labels(turn.role).inc(turn.prompt_tokens)
            self.cached.labels(turn.role).inc(turn.cached_tokens or 0)
            self.turn_seconds.labels(turn.role).observe(each.seconds)
            if number == 0 and each.first_token_s is not None:
                self.first_token_seconds.observe(each.first_token_s)

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self.registry)
