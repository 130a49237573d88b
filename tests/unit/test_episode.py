"""The Episode: what a policy saw and sampled, what of it the loss can touch, and how it is written down.

Not proved here: that an engine returns the ids that it sampled, that the trainer's forward pass gives the sampler's
log-probabilities back, and that verl's engine, which packs and splits batches, keeps what its loss function does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen2ForCausalLM
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPActorConfig
from verl.workers.utils.losses import ppo_loss

from longshort.episode import Episode, Ids, Outcome, Problem, Turn, View
from longshort.policy import Sample
from workers.batch import pad_to_multiple, response_rows, sample_batch, view_batch

ROLES = ("long", "short")
VOCABULARY = 40
IDS = st.lists(st.integers(0, VOCABULARY - 1), max_size=5).map(tuple)
NAMES = st.text(max_size=6)


def turn_of(role: str, ids: Ids, closing: Ids = (), read_as: dict[str, Ids] | None = None) -> Turn:
    log_probs = tuple(-0.25 * (i + 1) for i in range(len(ids)))
    return Turn(role, ids, f"<{role}>", log_probs, "stop", closing_ids=closing, read_as=read_as or {})


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    """Any turn: empty, closed by the controller, or read in other ids by the partner."""
    author, reader = draw(st.permutations(ROLES))
    ids = draw(IDS)
    return Turn(
        role=author,
        token_ids=ids,
        text=draw(st.text(max_size=8)),
        log_probs=tuple(draw(st.lists(st.floats(-30, -0.01), min_size=len(ids), max_size=len(ids)))),
        finish_reason=draw(st.sampled_from(("stop", "length"))),
        well_formed=draw(st.booleans()),
        closing_ids=draw(IDS),
        read_as=draw(st.just({}) | IDS.map(lambda read: {reader: read})),
        cached_tokens=draw(st.none() | st.integers(0, 9)),
        prompt_tokens=draw(st.integers(0, 99)),
    )


def episodes(alternating: bool = False) -> st.SearchStrategy[Episode]:
    """Any episode; ``alternating``: none of whose turns is empty."""
    any_turn = turns().filter(lambda turn: turn.token_ids) if alternating else turns()
    prompts = st.fixed_dictionaries({role: IDS.filter(bool) for role in ROLES})
    return st.builds(
        Episode,
        problem=st.builds(Problem, NAMES, NAMES, NAMES, NAMES),
        prompts=prompts,
        turns=st.lists(any_turn, min_size=alternating, max_size=6).map(tuple),
        outcome=st.sampled_from(get_args(Outcome)),
        sample=st.integers(0, 7),
        error=st.none() | st.text(max_size=8),
    )


def seen_by(episode: Episode, role: str) -> list[tuple[int, int, float]]:
    """Every id of the role's context with whether the role sampled it, and its log-probability or 0."""
    seen = [(token, 0, 0.0) for token in episode.prompts[role]]
    for turn in episode.turns:
        if turn.role == role:
            seen += [(token, 1, value) for token, value in zip(turn.token_ids, turn.log_probs, strict=True)]
            seen += [(token, 0, 0.0) for token in turn.closing_ids]
        else:
            seen += [(token, 0, 0.0) for token in turn.read_as.get(role, turn.token_ids + turn.closing_ids)]
    return seen


# Views


@given(episodes(), st.sampled_from(ROLES))
def test_the_mask_covers_exactly_the_sampled_tokens_of_all_turns(episode: Episode, role: str) -> None:
    seen = seen_by(episode, role)
    sampled = [place for place, (_, mine, _) in enumerate(seen) if mine]
    view = episode.view(role)
    if not sampled:
        assert view is None
        return
    assert view is not None
    first, last = sampled[0], sampled[-1]
    assert view.prompt_ids == tuple(token for token, _, _ in seen[:first])
    assert view.response_ids == tuple(token for token, _, _ in seen[first : last + 1])
    assert view.mask == tuple(mine for _, mine, _ in seen[first : last + 1])
    assert view.log_probs == tuple(value for _, _, value in seen[first : last + 1])
    assert sum(view.mask) == episode.tokens_of(role)


@given(episodes(), st.sampled_from(ROLES))
def test_a_view_begins_and_ends_with_a_sampled_token(episode: Episode, role: str) -> None:
    view = episode.view(role)
    if view is not None:
        assert view.mask[0] == view.mask[-1] == 1
        assert len(view.response_ids) == len(view.mask) == len(view.log_probs)


@given(episodes(), st.sampled_from(ROLES))
def test_a_view_is_the_beginning_of_the_context_that_the_role_continues(episode: Episode, role: str) -> None:
    view = episode.view(role)
    if view is not None:
        ids = view.prompt_ids + view.response_ids
        assert episode.context(role)[: len(ids)] == ids


@given(episodes(), turns(), st.sampled_from(ROLES))
def test_contexts_only_grow_at_their_end(episode: Episode, turn: Turn, role: str) -> None:
    longer = replace(episode, turns=(*episode.turns, turn))
    assert longer.context(role) == episode.context(role) + turn.ids_for(role)


def test_the_architecture_document_shows_true_views() -> None:
    episode = Episode(
        Problem("p", "q", "a"),
        {"long": (1, 2), "short": (3,)},
        (
            turn_of("long", (10, 11, 12)),
            turn_of("short", (20, 21, 22)),
            turn_of("long", (10, 13), closing=(12,)),
            turn_of("short", (20, 23, 24, 0), read_as={"long": (20, 23, 24)}),
        ),
        "answered",
    )
    long, short = episode.view("long"), episode.view("short")
    assert long is not None and short is not None
    assert (long.prompt_ids, long.response_ids) == ((1, 2), (10, 11, 12, 20, 21, 22, 10, 13))
    assert long.mask == (1, 1, 1, 0, 0, 0, 1, 1)
    assert long.log_probs == (-0.25, -0.5, -0.75, 0.0, 0.0, 0.0, -0.25, -0.5)
    assert (short.prompt_ids, short.response_ids) == ((3, 10, 11, 12), (20, 21, 22, 10, 13, 12, 20, 23, 24, 0))
    assert short.mask == (1, 1, 1, 0, 0, 0, 1, 1, 1, 1)


def test_an_empty_first_turn_with_closing_ids_belongs_to_the_prompt() -> None:
    turns_ = (turn_of("long", (), closing=(9,)), turn_of("short", (20,)), turn_of("long", (10,)))
    view = Episode(Problem("p", "q", "a"), {"long": (1,), "short": (2,)}, turns_, "turn_limit").view("long")
    assert view == View((1, 9, 20), (10,), (1,), (-0.25,))


# Lengths


@given(episodes())
def test_the_tokens_of_an_episode_are_the_sampled_ones_of_its_roles(episode: Episode) -> None:
    assert episode.tokens == sum(map(episode.tokens_of, ROLES)) == sum(len(turn.token_ids) for turn in episode.turns)


# On disk


@given(episodes())
def test_an_episode_survives_json(episode: Episode) -> None:
    line = episode.to_json()
    assert "\n" not in line
    assert Episode.from_json(line) == episode
    assert Episode.from_dict(asdict(episode)) == episode


def test_log_probs_without_a_finite_value_survive_json() -> None:
    turn = replace(turn_of("long", (1, 2)), log_probs=(float("-inf"), -1e-300))
    episode = Episode(Problem("p", "q", "a"), {"long": (1,)}, (turn,), "malformed")
    assert Episode.from_json(episode.to_json()) == episode


# What the loss can touch, with a real model and verl's loss


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=VOCABULARY, initializer_range=0.5, **sizes, **heads)).eval()


def logits_of(model: Qwen2ForCausalLM, rows: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Logits of each row by itself: what an engine that packs without padding computes."""
    return [model(row.unsqueeze(0)).logits[0] for row in rows]


def next_log_probs(logits: Sequence[torch.Tensor], rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """At each position the log-probability of the id after it, jagged, as verl's engine hands it to the loss."""
    values = [
        scores.log_softmax(-1).gather(-1, row.roll(-1).unsqueeze(-1)).squeeze(-1)
        for scores, row in zip(logits, rows, strict=True)
    ]
    return torch.nested.as_nested_tensor(values, layout=torch.jagged)


def samples_of(views: Sequence[View], model: Qwen2ForCausalLM) -> list[Sample]:
    """Views with advantages that are not zero and the model's own log-probabilities as old ones."""
    batch = view_batch(views)
    rows = batch["input_ids"].unbind()
    with torch.no_grad():
        old = response_rows(next_log_probs(logits_of(model, rows), rows), batch)
    return [Sample(view, 1.0 - 1.5 * i, row) for i, (view, row) in enumerate(zip(views, old, strict=True))]


def backward(samples: Sequence[Sample], model: Qwen2ForCausalLM) -> tuple[float, list[torch.Tensor]]:
    """verl's loss over the samples and, per sample, its gradient at every position's logits."""
    batch = sample_batch(samples)
    tokens = sum(sum(sample.view.mask) for sample in samples)
    tu.assign_non_tensor(batch, dp_size=1, batch_num_tokens=tokens, global_batch_size=len(samples))
    rows = batch["input_ids"].unbind()
    logits = logits_of(model, rows)
    for scores in logits:
        scores.retain_grad()
    config = FSDPActorConfig(strategy="fsdp2", rollout_n=2, use_dynamic_bsz=True)
    loss, _ = ppo_loss(config, {"log_probs": next_log_probs(logits, rows)}, batch)
    loss.backward()
    gradients = [scores.grad for scores in logits]
    assert all(gradient is not None for gradient in gradients)
    return loss.item(), gradients


@settings(max_examples=8)
@given(st.lists(episodes(alternating=True), min_size=1, max_size=3))
def test_only_logits_that_predict_a_sampled_token_have_a_gradient(
    model: Qwen2ForCausalLM, played: list[Episode]
) -> None:
    views = [view for episode in played for role in ROLES if (view := episode.view(role)) is not None]
    _, gradients = backward(samples_of(views, model), model)
    for view, gradient in zip(views, gradients, strict=True):
        before = len(view.prompt_ids) - 1
        trained = [before + place for place, mine in enumerate(view.mask) if mine]
        assert gradient.abs().sum(-1).nonzero().flatten().tolist() == trained


def conversation() -> Episode:
    turns_ = (
        turn_of("long", (10, 11, 12)),
        turn_of("short", (20, 21), read_as={"long": (5, 6, 7)}),
        turn_of("long", (10, 13), closing=(12,)),
        turn_of("short", (20, 23, 0)),
        turn_of("long", (14,)),
    )
    return Episode(Problem("p", "q", "a"), {"long": (1, 2), "short": (3,)}, turns_, "turn_limit")


def test_fillers_change_neither_loss_nor_gradient(model: Qwen2ForCausalLM) -> None:
    views = [view for role in ROLES if (view := conversation().view(role)) is not None]
    samples = samples_of(views, model)
    loss, gradients = backward(samples, model)
    padded = pad_to_multiple(samples, 5)
    assert len(padded) == 5
    padded_loss, padded_gradients = backward(padded, model)
    assert padded_loss == pytest.approx(loss, abs=1e-7)
    for gradient, padded_gradient in zip(gradients, padded_gradients, strict=False):
        torch.testing.assert_close(gradient, padded_gradient)
    assert not any(gradient.any() for gradient in padded_gradients[len(samples) :])


def test_one_view_scores_every_turn_as_if_it_stood_alone(model: Qwen2ForCausalLM) -> None:
    episode = conversation()
    view = episode.view("long")
    assert view is not None
    (together,) = samples_of([view], model)
    of_view = [value for value, mine in zip(together.old_log_probs, view.mask, strict=True) if mine]
    apart: list[float] = []
    for place, turn in enumerate(episode.turns):
        if turn.role == "long":
            context = replace(episode, turns=episode.turns[:place]).context("long")
            ones = (1,) * len(turn.token_ids)
            (alone,) = samples_of([View(context, turn.token_ids, ones, turn.log_probs)], model)
            apart += alone.old_log_probs
    assert of_view == pytest.approx(apart, abs=1e-5)


def test_a_batch_holds_every_view_as_it_is() -> None:
    views = [view for role in ROLES if (view := conversation().view(role)) is not None]
    samples = [Sample(view, 2.0 - i, view.log_probs, view.log_probs) for i, view in enumerate(views)]
    batch = sample_batch(samples)
    for i, view in enumerate(views):
        rows = {name: batch[name].unbind()[i].tolist() for name in batch.keys()}  # noqa: SIM118 TensorDict is no dict
        length = len(view.response_ids)
        assert rows["input_ids"] == [*view.prompt_ids, *view.response_ids]
        assert rows["position_ids"] == list(range(len(rows["input_ids"])))
        assert (rows["prompts"], rows["responses"]) == (list(view.prompt_ids), list(view.response_ids))
        assert rows["response_mask"] == rows["loss_mask"] == list(view.mask)
        assert rows["old_log_probs"] == rows["ref_log_prob"] == pytest.approx(list(view.log_probs))
        assert rows["advantages"] == [2.0 - i] * length
