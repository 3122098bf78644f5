"""Ranks texts by the words they share with a query (BM25)."""

import math
import re
from collections import Counter

_K, _B = 1.5, 0.75
"""How fast a repeated word counts less, and how much a long text does: the usual values."""


class Index:
    """Texts in memory."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self._words: dict[str, Counter[str]] = {}

    def add(self, id_: str, text: str) -> None:
        """Add a text, or replace the one of that id."""
        self.texts[id_] = text
        self._words[id_] = Counter(_words(text))

    def remove(self, id_: str) -> bool:
        """Remove a text; false where there is none of that id."""
        self._words.pop(id_, None)
        return self.texts.pop(id_, None) is not None

    def search(self, query: str) -> list[tuple[str, float]]:
        """Ids and scores of the texts with a word of the query, best first."""
        words = dict(self._words)
        mean = sum(sum(counts.values()) for counts in words.values()) / (len(words) or 1)
        scores: Counter[str] = Counter()
        for word in set(_words(query)):
            having = {id_: counts[word] for id_, counts in words.items() if word in counts}
            rarity = math.log(1 + (len(words) - len(having) + 0.5) / (len(having) + 0.5))
            for id_, count in having.items():
                length = _K * (1 - _B + _B * sum(words[id_].values()) / mean)
                scores[id_] += rarity * count * (_K + 1) / (count + length)
        return scores.most_common()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
