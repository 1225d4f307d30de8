"""The typed configuration of the model and its training. Importing it costs nothing: torch stays out."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TowerConfig(BaseModel):
    """Sizes and head of a tower; the defaults are the paper's, but for the head."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    embedding_dim: int = Field(default=32, ge=1)
    hidden: tuple[int, ...] = (256, 128)
    output_dim: int = Field(default=32, ge=1)
    head: Literal["linear", "relu"] = "linear"
    """``relu`` is eq. 1 to the letter: non-negative vectors, whose scores cannot fall below 1/2. It collapses."""
    shortcut: bool = True
    """A linear map straight from the tower's inputs to its output, added to what the layers make of them: what an
    augmented vector or an id says by itself need not be learnt through the layers. Eq. 1 has none, nor has ``relu``."""


class DATConfig(BaseModel):
    """Everything that shapes the model and its training."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    tower: TowerConfig = TowerConfig()
    amm: Literal["point_in_time", "gradient", "off"] = "point_in_time"
    """``gradient``: a_u, a_v are parameters under eq. 2's loss, as published. ``point_in_time``: the window is replayed
    in order and each example reads the a_u, a_v from before it, which is what the stream will know."""
    memories: tuple[float, ...] = (1.0, 0.4, 0.1, 0.02)
    """Step sizes α of the averages that make up an augmented vector, side by side; 1 remembers the last click alone."""
    augmented: Literal["both", "query", "item"] = "both"
    """Which towers read an augmented vector. Where a night's vectors serve the day, a_v of a midnight tells which
    midnight it was, and the towers learn the few nights of the window by heart: there ``query`` is better."""
    loss: Literal["bce", "sampled_softmax"] = "sampled_softmax"
    temperature: float = Field(default=15.0, gt=0)
    """Scores are multiplied by this inside the loss (1 is eq. 4 to the letter)."""
    frequency_window: int = Field(default=4096, ge=1)
    """Clicks around a batch in which the logQ correction counts how often an item is clicked: what is in fashion
    changes, and a batch is a moment. Where nothing is ever in fashion, all clicks say more."""
    lambda_u: float = 0.5
    lambda_v: float = 0.5
    lambda_ca: float = 0.0
    """The paper's is 1. On MovieLens category alignment costs a little, most at the first places of the tail."""
    latest: int = Field(default=20, ge=0)
    """L, how many of a query's latest items its tower reads by an embedding of their own (0: none). The augmented
    vector holds what they have in common; this, which they are."""
    latest_memories: tuple[float, ...] = (0.3, 0.03)
    """Step sizes α of the averages in which it reads them."""
    latest_dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of the latest items that is left out of an example in training."""
    embedding_dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of the embeddings' numbers that is zeroed in training, the others made larger to make up for it."""
    query_id_dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of examples whose query id is replaced by the unknown one, which is how that one is trained."""
    item_id_dropout: float = Field(default=0.1, ge=0, lt=1)
    batch_size: int = Field(default=256, ge=2)
    epochs: int = Field(default=6, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    """Of the first step; it falls to 0 in a straight line."""
    table_rate: float = Field(default=1.0, gt=0)
    """The embedding tables' learning rate, as a multiple of the layers'."""
    seed: int = 0

    @model_validator(mode="after")
    def _published_form_has_both(self) -> "DATConfig":
        if self.amm == "gradient" and self.augmented != "both":
            raise ValueError(f"augmented = {self.augmented} is of amm = point_in_time; with amm = gradient it is both")
        return self

    def memories_of(self, side: Literal["query", "item"]) -> tuple[float, ...]:
        """Step sizes of one side's augmented vectors, none where its tower reads none."""
        return self.memories if self.amm != "off" and self.augmented in ("both", side) else ()


PAPER = DATConfig(
    tower=TowerConfig(head="relu", shortcut=False),
    amm="gradient",
    memories=(0.1,),
    loss="bce",
    temperature=1.0,
    latest=0,
    embedding_dropout=0.0,
    lambda_ca=1.0,
    query_id_dropout=0.0,
    item_id_dropout=0.0,
)
"""The published model to the letter: eq. 1 with its last ReLU, eq. 2 by gradient, eq. 4 without temperature."""
