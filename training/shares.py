"""Category shares: which share of a query's recent clicks went to each category of items.

They are further columns of the query's decayed counters, behind the plain ones: a click adds one to every plain counter
and to the column of its item's category. Counting them is thus :mod:`training.activity`'s, for Spark, the trainer and
the stream alike; a column is turned into a share only where a tower reads it.
"""

import numpy as np
from pydantic import BaseModel, ConfigDict

from feature_repo.card import DatasetCard, duration_ms

Array = np.ndarray
LARGEST = 31  # categories with a column of their own; all others share one


class CategoryShares(BaseModel):
    """What is counted by category, fixed at the first training and inherited by retrained models.

    feature: the item feature whose first value is the category · categories: those with a column of their own.
    """

    model_config = ConfigDict(frozen=True)
    half_life_ms: int
    feature: str
    categories: list[str]

    @property
    def width(self) -> int:
        """Columns: one a category, and one for all others."""
        return len(self.categories) + 1

    @classmethod
    def of(cls, card: DatasetCard, clicks_by_category: dict[str, int]) -> "CategoryShares | None":
        """What a card asks for, given how often each category was clicked; None if it asks for no shares."""
        if card.query.category_shares is None:
            return None
        order = sorted(clicks_by_category, key=lambda name: (-clicks_by_category[name], name))
        half_life = duration_ms(card.query.category_shares)
        return cls(half_life_ms=half_life, feature=card.item.category, categories=order[:LARGEST])


def shares(counts: Array) -> Array:
    """Decayed clicks by category [N, C] → shares [N, C], all 0 before the first click."""
    return (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-9)).astype(np.float32)


def all_half_lives(half_lives_ms: tuple[int, ...], shares: CategoryShares | None) -> tuple[int, ...]:
    """Half-lives of all columns of a side's counters: the plain ones, then those by category."""
    return half_lives_ms + ((shares.half_life_ms,) * shares.width if shares else ())


def added(plain: int, columns: Array, width: int) -> Array:
    """[N, plain + width] what clicks add: one to each plain counter, one to the column [N] of each one's category."""
    amounts = np.zeros((len(columns), plain + width), np.float32)
    amounts[:, :plain] = 1
    amounts[np.arange(len(columns)), plain + columns] = 1
    return amounts
