"""What is in service: one bundle and everything made from it.

A request takes the reference once and works with it to the end, so an answer is of one bundle even while the next one
is put in its place: that is one assignment.
"""

from dataclasses import dataclass

from model.bundle import Bundle
from model.settings.serving import ServingConfig
from serving.corpus import Corpus
from serving.query_state import QueryTable


@dataclass(frozen=True)
class Snapshot:
    bundle: Bundle
    queries: QueryTable
    corpus: Corpus

    @property
    def version(self) -> str:
        return self.bundle.version

    @classmethod
    def of(cls, bundle: Bundle, config: ServingConfig) -> "Snapshot":
        """Everything that serving a bundle needs, its items as of the cut."""
        return cls(bundle, QueryTable(bundle), Corpus(bundle, config))
