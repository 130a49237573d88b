"""What a batch of episodes looks like in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import exp
from statistics import fmean
from typing import get_args

from longshort.episode import Episode, Outcome, View
from longshort.policy import Rows, TokenScores
from longshort.rewards import Reward


def episode_metrics(episodes: Sequence[Episode], correct: Sequence[bool]) -> dict[str, float]:
    """Accuracy, tokens, turns and outcomes of whole episodes; per role its turns, tokens and caps hit."""
    outcomes = Counter(episode.outcome for episode in episodes)
    metrics = {
        "accuracy": fmean(correct),
        "tokens_per_episode": fmean(episode.tokens for episode in episodes),
        "turns_per_episode": fmean(len(episode.turns) for episode in episodes),
    }
    metrics |= {f"outcome/{name}": outcomes[name] / len(episodes) for name in get_args(Outcome)}
    for role in episodes[0].prompts:
        turns = [turn for episode in episodes for turn in episode.turns if turn.role == role]
        metrics[f"{role}/turns"] = len(turns) / len(episodes)
        metrics[f"{role}/tokens"] = sum(len(turn.token_ids) for turn in turns) / len(episodes)
        metrics[f"{role}/cut_turns"] = sum(turn.finish_reason == "length" for turn in turns) / max(len(turns), 1)
        metrics[f"{role}/well_formed_turns"] = sum(turn.well_formed for turn in turns) / max(len(turns), 1)
        known = [turn for turn in turns if turn.cached_tokens is not None]
        prompt_tokens = sum(turn.prompt_tokens for turn in known)
        cached_tokens = sum(turn.cached_tokens or 0 for turn in known)
        metrics[f"{role}/cached_prompt_share"] = cached_tokens / max(prompt_tokens, 1)
    return metrics


def reward_metrics(role: str, rewards: Sequence[Reward]) -> dict[str, float]:
    """Mean of every reward part."""
    names = rewards[0].parts()
    return {f"{role}/reward/{name}": fmean(getattr(reward, name) for reward in rewards) for name in names}


def score_metrics(role: str, views: Sequence[View], scores: TokenScores) -> dict[str, float]:
    """Means over the sampled tokens: gap between the engine's and the trainer's log-probabilities, and entropy."""
    gaps = [abs(a - b) for (a, b) in _sampled(views, [view.log_probs for view in views], scores.log_probs)]
    metrics = {f"{role}/log_prob_gap": fmean(gaps), f"{role}/log_prob_gap_max": max(gaps)}
    if scores.entropy is not None:
        metrics[f"{role}/entropy"] = fmean(value for value, _ in _sampled(views, scores.entropy, scores.entropy))
    return metrics


def kl_metrics(role: str, views: Sequence[View], old: Rows, reference: TokenScores) -> dict[str, float]:
    """KL to the reference, the mean of its k3 estimate over the sampled tokens."""
    pairs = _sampled(views, reference.log_probs, old)
    return {f"{role}/kl": fmean(exp(ref - own) - (ref - own) - 1 for ref, own in pairs)}


def _sampled(
    views: Sequence[View], left: Sequence[Sequence[float]], right: Sequence[Sequence[float]]
) -> list[tuple[float, float]]:
    """Pairs of values at the tokens that the policy sampled."""
    return [
        (a, b)
        for view, row_a, row_b in zip(views, left, right, strict=True)
        for sampled, a, b in zip(view.mask, row_a, row_b, strict=True)
        if sampled
    ]
