"""Words of reflection and phrases of "aha moments", in English and Chinese.

ThinkPrune (arXiv 2504.01296) counts the first before and after pruning, Long⊗Short (arXiv 2505.11827) the share of
conversations with the second; neither prints its list in full, so both lists are ours.

Phrases are found whatever their case, and the longest that fits is counted: "but wait" is not also "wait". English ones
are whole words, also right after a Chinese one; any white space and either apostrophe will do within one. Chinese has
no spaces between words, so ``_WITHIN`` says where a phrase is a part of another word.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from longshort.episode import Episode

Phrases = Mapping[str, tuple[str, ...]]

REFLECTION: Phrases = {
    "en": (
        *("wait", "but wait", "oh wait", "hold on", "hmm", "alternatively", "another way", "actually", "however"),
        *("maybe", "perhaps", "let me check", "let me verify", "let me see", "let me think", "let me reconsider"),
        *("double-check", "double check", "is that right", "that can't be right", "going back", "on second thought"),
    ),
    "zh": (
        *(
            "等等",
            "等一下",
            "不对",
            "再想想",
            "或者",
            "另一种方法",
            "换个思路",
            "换一种",
            "其实",
            "但是",
            "也许",
            "可能",
        ),
        *("让我检查", "让我验证", "验证一下", "检查一下", "重新考虑", "再看看", "仔细想", "嗯", "回过头"),
    ),
}
AHA: Phrases = {
    "en": (
        *("maybe i'm overthinking", "i'm overthinking", "i am overthinking", "overthinking this", "overcomplicating"),
        *("let me double-check", "let me double check", "let me re-check", "let me recheck", "let me rethink"),
        *("let me reconsider", "let me re-examine", "let me reexamine", "let me start over", "let me re-evaluate"),
        *("needs to be reconsidered", "needs to be rethought", "need to reconsider", "need to rethink", "rethink this"),
        *("i made a mistake", "that's not right", "that is not right", "aha"),
    ),
    "zh": (
        *(
            "想多了",
            "想得太复杂",
            "过度思考",
            "让我再检查",
            "让我重新检查",
            "再检查一遍",
            "重新思考",
            "重新考虑",
            "重新审视",
        ),
        *("需要重新", "重新推导", "从头再来", "我犯了一个错误", "我弄错了", "这不对", "恍然大悟"),
    ),
}

# Chinese phrases where they are counted: 不对称 is asymmetric, 不可能 impossible, and 等等 at the end of a list with 、
# is "and so on".
_WITHIN: Mapping[str, str] = {
    "不对": "不对(?![称等应])",
    "这不对": "这不对(?![称等应])",
    "可能": "(?<![不尽])可能",
    "等等": "".join(rf"(?<!、\w{{{length}}})" for length in range(1, 9)) + "等等",
}


def count_phrases(text: str, phrases: Phrases) -> Counter[str]:
    """Occurrences of each phrase that occurs, without overlap, the longest first.

    Example: "Wait. But  wait!" has one "wait" and one "but wait".
    """
    pattern, names = _pattern(tuple((language, tuple(found)) for language, found in phrases.items()))
    return Counter(names[match.lastindex - 1] for match in pattern.finditer(text) if match.lastindex)


def word_numbers(episodes: Sequence[Episode]) -> dict[str, Any]:
    """What a set of conversations has of both, over all turns; see :func:`numbers_of_texts`."""
    return numbers_of_texts([("\n".join(turn.text for turn in episode.turns), episode.tokens) for episode in episodes])


def numbers_of_texts(conversations: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """The same of texts and their sampled tokens, at least one.

    - ``reflection``: by word, occurrences for 1,000 sampled tokens; ``reflection_per_1000_tokens``: their sum.
    - ``reflection_share``, ``aha_share``: conversations with any; ``aha``: by phrase, conversations with it, a share.
    """
    words: Counter[str] = Counter()
    phrases: Counter[str] = Counter()
    reflecting = surprised = 0
    for text, _ in conversations:
        found, moments = count_phrases(text, REFLECTION), count_phrases(text, AHA)
        words += found
        phrases.update(moments.keys())
        reflecting += bool(found)
        surprised += bool(moments)
    thousands = sum(tokens for _, tokens in conversations) / 1000
    per_thousand = {word: count / thousands for word, count in words.most_common()} if thousands else {}
    return {
        "reflection_per_1000_tokens": sum(per_thousand.values()),
        "reflection_share": reflecting / len(conversations),
        "reflection": per_thousand,
        "aha_share": surprised / len(conversations),
        "aha": {phrase: count / len(conversations) for phrase, count in phrases.most_common()},
    }


@lru_cache
def _pattern(phrases: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """A group for each phrase, and the phrases in the order of their groups."""
    longest = [(language, sorted(found, key=len, reverse=True)) for language, found in phrases]
    pattern = "|".join(_english(found) if language == "en" else _chinese(found) for language, found in longest)
    return re.compile(pattern, re.IGNORECASE), tuple(phrase for _, found in longest for phrase in found)


def _english(phrases: Sequence[str]) -> str:
    words = [r"(?u:\s+)".join(re.escape(p).replace("'", "['\u2019]") for p in phrase.split()) for phrase in phrases]
    # As ASCII, for an i is also a dotless one otherwise, and a Chinese character a letter of the word beside it.
    return rf"(?a:(?<![a-z]){_any(phrases, words)}(?![a-z]))"


def _chinese(phrases: Sequence[str]) -> str:
    return _any(phrases, [_WITHIN.get(phrase, re.escape(phrase)) for phrase in phrases])


def _any(phrases: Sequence[str], patterns: Sequence[str]) -> str:
    # A look at the first character spares most places of a text the trial of every phrase.
    first = re.escape("".join(sorted({phrase[0] for phrase in phrases})))
    return f"(?=[{first}])(?:{'|'.join(f'({pattern})' for pattern in patterns)})"
