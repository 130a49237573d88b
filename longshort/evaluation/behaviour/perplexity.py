"""Perplexity of conversations under a reference model: how readable they are to a model that was not trained on them
(ThinkPrune, arXiv 2504.01296, analysis)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from longshort.episode import Episode
from longshort.generation import Chat, Tokenizer, chat_ids
from longshort.stages import Record

# Tokens of a batch, padding included, and positions whose logits are made at a time.
BATCH_TOKENS = 16_384
LOGIT_ROWS = 1_024


class Reference:
    """A model of transformers that scores text; loaded when it is made.

    Args:
        path: a folder, or a name on the hub.
        device: torch's.
    """

    def __init__(self, path: str, device: str, tokenizer: Tokenizer) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.tokenizer, self._device = tokenizer, device
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        self._model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device).eval()
        self.context = int(self._model.config.get_text_config().max_position_embeddings)

    def score(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
        """Sum of -log p, in nats, of each row's second part after its first.

        Args:
            rows: (prompt, text) in ids, neither empty, together within ``context``.
        """
        import torch

        longest = max(len(prompt) + len(text) for prompt, text in rows)
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        attention = torch.zeros_like(ids)
        for row, (prompt, text) in enumerate(rows):
            ids[row, : len(prompt) + len(text)] = torch.tensor([*prompt, *text])
            attention[row, : len(prompt) + len(text)] = 1
        with torch.inference_mode():
            hidden = self._model.base_model(
                input_ids=ids.to(self._device), attention_mask=attention.to(self._device)
            ).last_hidden_state
            head = self._model.get_output_embeddings()
            sums = []
            for row, (prompt, text) in enumerate(rows):
                start, total = len(prompt) - 1, 0.0
                # All logits of a long text at once would not fit.
                for first in range(0, len(text), LOGIT_ROWS):
                    target = torch.tensor(text[first : first + LOGIT_ROWS], device=self._device)
                    states = hidden[row, start + first : start + first + len(target)]
                    log_probs = torch.log_softmax(head(states).float(), dim=-1)
                    total -= log_probs.gather(1, target[:, None]).sum().item()
                sums.append(total)
        return sums


def score_episodes(reference: Reference, episodes: Sequence[Episode]) -> list[Record]:
    """``{"tokens": …, "nll": …, "cut": …}`` of each conversation, in the reference's own tokens.

    The question, by the reference's chat template, is the prompt; all turns in a row are the text. What does not fit
    into its context is left out, and ``cut`` says so. A conversation without text has 0 tokens.
    """
    rows, cut = [], []
    for episode in episodes:
        prompt = chat_ids(reference.tokenizer, Chat(({"role": "user", "content": episode.problem.question},)))
        text = reference.tokenizer.encode("".join(turn.text for turn in episode.turns), add_special_tokens=False)
        room = reference.context - len(prompt)
        rows.append((prompt, text[: max(room, 0)]))
        cut.append(len(text) > room)
    scored = [index for index, (_, text) in enumerate(rows) if text]
    sums = dict(zip(scored, reference.score([rows[index] for index in scored]), strict=True)) if scored else {}
    return [
        {"tokens": len(text), "nll": sums.get(index, 0.0), "cut": cut[index]} for index, (_, text) in enumerate(rows)
    ]


def batches(episodes: Sequence[Episode], tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Indices of episodes in batches of similar length, about ``tokens`` each, padding included."""
    order = sorted(range(len(episodes)), key=lambda index: episodes[index].tokens)
    found: list[list[int]] = [[]]
    for index in order:
        # The longest comes last, and the others are padded to it.
        if found[-1] and (len(found[-1]) + 1) * max(episodes[index].tokens, 1) > tokens:
            found.append([])
        found[-1].append(index)
    return [batch for batch in found if batch]


def perplexity_numbers(records: Iterable[Record]) -> dict[str, Any]:
    """``perplexity``: exp of the mean over all tokens; ``median``: over conversations; None without a token."""
    found = [record for record in records if record["tokens"]]
    tokens = sum(record["tokens"] for record in found)
    return {
        "perplexity": math.exp(sum(record["nll"] for record in found) / tokens) if found else None,
        "median": median(math.exp(record["nll"] / record["tokens"]) for record in found) if found else None,
        "conversations": len(found),
        "cut": sum(record["cut"] for record in found),
    }
