"""What training leaves: a model with the state of every id at the cut."""

from dataclasses import dataclass

from training.bundle import Bundle, SideTable
from training.collapse import EpochReport
from training.config import DATConfig
from training.dat import DAT
from training.features import InputSpec


@dataclass(frozen=True)
class Fitted:
    """A trained model with the state of every id at the cut, all vectors in one space."""

    model: DAT
    queries: SideTable
    items: SideTable
    query_spec: InputSpec
    item_spec: InputSpec
    config: DATConfig
    history: list[EpochReport]

    @classmethod
    def of(cls, bundle: Bundle) -> "Fitted":
        """A published bundle in the form that the evaluation takes."""
        manifest = bundle.manifest
        return cls(bundle.model, bundle.queries, bundle.items, manifest.query, manifest.item, manifest.config, [])
