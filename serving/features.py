"""Reading Feast online, through the SDK in this process."""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from feast import FeatureStore

Columns = dict[str, list[Any]]


class StoreDown(RuntimeError):
    """The online store did not answer. The message is the store's own."""


class Counts(NamedTuple):
    """What the store counts of a query; None where it has nothing."""

    clicks: int | None
    folded: int | None
    bundle: str | None


class OnlineFeatures:
    """What the service reads of queries and items: one SDK call a question, whatever the number of ids.

    SQLite's connection is not made for several threads at once, so calls take turns.
    """

    def __init__(self, store: FeatureStore):
        self._store = store
        self._lock = threading.Lock()
        service = store.get_feature_service("query_tower")
        # References by name, so that what no tower reads (known) comes in the same call.
        self._tower = [
            f"{view.name}:{field.name}" for view in service.feature_view_projections for field in view.features
        ]
        read = {
            field.name
            for view in store.get_feature_service("item_tower").feature_view_projections
            for field in view.features
        }
        profile = [field.name for field in store.get_feature_view("item_profile").features]
        self.texts = [name for name in profile if name not in read]
        """Item features that are shown to people and read by no tower, the card's first (the title) first."""
        self._item = [f"item_profile:{name}" for name in profile]

    def queries(self, ids: Sequence[str]) -> Columns:
        """All that answering for some queries needs: ``view__feature`` → one value a query, None where unknown.

        Raises:
            StoreDown: the store did not answer.
        """
        return self._read([*self._tower, "query_profile:known"], "query_id", ids)

    def counts(self, ids: Sequence[str]) -> list[Counts]:
        """How many clicks each query counts and has folded: the small read that held answers wait by.

        Raises:
            StoreDown: the store did not answer.
        """
        names = ("query_activity__clicks", "query_augmented__folded", "query_augmented__bundle")
        columns = self._read([name.replace("__", ":") for name in names], "query_id", ids)
        return [Counts(*row) for row in zip(*(columns[name] for name in names), strict=True)]

    def history_lengths(self, ids: Sequence[str]) -> list[int]:
        """How many items each query's history holds.

        Raises:
            StoreDown: the store did not answer.
        """
        histories = self._read(["query_history:history"], "query_id", ids)["query_history__history"]
        return [len(history or ()) for history in histories]

    def items(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The catalogue's features of some items: {feature: value}, texts included.

        Raises:
            StoreDown: the store did not answer.
        """
        columns = self._read(self._item, "item_id", ids)
        names = [reference.partition(":")[2] for reference in self._item]
        return [{name: columns[f"item_profile__{name}"][k] for name in names} for k in range(len(ids))]

    def _read(self, references: Sequence[str], key: str, ids: Sequence[str]) -> Columns:
        try:
            with self._lock:
                return self._store.get_online_features(
                    features=list(references), entity_rows={key: list(ids)}, full_feature_names=True
                ).to_dict()
        except Exception as error:  # each store raises its own kinds
            raise StoreDown(f"{type(error).__name__}: {error}") from error
