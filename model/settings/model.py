"""The model and its training. Importing it costs nothing: torch stays out."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from model.settings.part import SettingsPart


class TowerConfig(SettingsPart):
    """Sizes of a tower; the defaults are the paper's."""

    embedding_dim: int = Field(default=32, ge=1)
    hidden: tuple[int, ...] = (256, 128)
    output_dim: int = Field(default=32, ge=1)


class PaperConfig(SettingsPart):
    """What only the published training has: see ``DATConfig.preset``."""

    relu_head: bool = True
    """Eq. 1 to the letter. Its vectors are not negative, so no score falls below 1/2, and the model collapses; False:
    the last layer is linear."""
    lambda_u: float = Field(default=0.5, ge=0)
    """λ1: weight of a_u's mimic loss."""
    lambda_v: float = Field(default=0.5, ge=0)
    """λ2: weight of a_v's mimic loss."""
    lambda_ca: float = Field(default=1.0, ge=0)
    """λ3: weight of the category alignment loss."""


class ClosedFormConfig(SettingsPart):
    """EASE^R (Steck, 2019) with recency, as dimensions of the same inner product."""

    weight: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """What its part of the score is multiplied by; 0: there is none. ``auto``: what finds most of the newest clicks of
    the window, of which a first model has seen none; a bundle holds the number."""
    l2: float = Field(default=1200.0, gt=0)
    """The ridge penalty."""
    decay: float = Field(default=0.96, gt=0, le=1)
    """What a click of the query is worth after each further click."""
    rank: int = Field(default=128, ge=1)
    """Dimensions of the index that it takes."""
    max_items: int = Field(default=20_000, ge=1)
    """Only so many items, the most clicked ones, are solved for: the solution is a dense matrix."""


NO_CLOSED_FORM = ClosedFormConfig(weight=0.0)


class MemoryConfig(SettingsPart):
    """Learned memories: augmented vectors that read what is clicked, and learn what to keep (docs/how-it-works.md)."""

    dim: int = Field(default=64, ge=1)
    """d: length of an item's embedding, and of the first part of both vectors."""
    rates: tuple[float, ...] = (0.4, 0.1, 0.02)
    """Step sizes of the first layer, a block of d numbers each: where its gates start. A rate of 1 is the last item."""
    learned: bool = True
    """Whether the first layer's gates and values learn from the item and the time gap; else its rates are fixed."""
    second: int = Field(default=128, ge=0)
    """Width of the second layer, which reads the first one's state; 0: there is none."""
    gaps: bool = True
    """Whether the time since the click before is read; a log without times has none."""
    span: int = Field(default=50, ge=1)
    """Gradient flows through this many of a query's clicks; the state before them is carried as it is."""
    same_moment: bool = False
    """Whether a training click knows the clicks of its own moment that come before it in the log."""
    hidden: int = Field(default=128, ge=1)
    """Width of the query tower's hidden layer."""
    item_rates: tuple[float, ...] = (0.05,)
    """Step sizes of a_v, an item's averages of the queries that clicked it; () leaves it out."""
    softmax: Literal["auto", "full", "sampled"] = "auto"
    """``full``: over all items that have been clicked · ``sampled``: over the batch's items and the drawn negatives,
    with the logQ correction · ``auto``: full up to 20,000 items."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    rare_clicks: float = Field(default=0.0, ge=0)
    """k: in training an item's id is hidden with probability k/(k + its clicks), if that is more than the dropout."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's, on the layers alone."""


class DATConfig(SettingsPart):
    """Everything that shapes the model and its training."""

    renamed: ClassVar[dict[str, str]] = {
        "memories": "ema_alphas",
        "latest": "recent_items",
        "latest_memories": "recent_alphas",
        "latest_dropout": "recent_dropout",
        "frequency_window": "logq_window",
        "table_rate": "embedding_lr_scale",
        "amm": "preset (amm = off: ema_alphas = [])",
    }

    preset: Literal["memories", "amm", "paper"] = "memories"
    """``memories``: a_u learns what it keeps of the clicked items · ``amm``: a_u and a_v are moving averages of the
    other tower's outputs (eq. 2), and each click is predicted from what was known before it · ``paper``: as published;
    a_u and a_v are parameters under eq. 2's loss, each click has S negatives of its own under eq. 4's, and categories
    are aligned by eq. 3."""
    memory: MemoryConfig = MemoryConfig()
    """Of the preset ``memories``."""
    closed_form: ClosedFormConfig = ClosedFormConfig()
    """Of the preset ``memories``."""
    paper: PaperConfig = PaperConfig()
    tower: TowerConfig = TowerConfig()
    ema_alphas: tuple[float, ...] = (1.0, 0.4, 0.1, 0.02)
    """Step sizes α of the averages that make up an augmented vector, side by side; 1 remembers the last click alone,
    and none at all make a plain two-tower model. ``paper`` streams by them, and trains one vector an α. Of ``amm`` and
    ``paper``."""
    temperature: float = Field(default=15.0, gt=0)
    """Scores are multiplied by this inside the loss (1 is eq. 4 to the letter)."""
    logq_window: int = Field(default=4096, ge=1)
    """Clicks around a batch in which the logQ correction counts an item's clicks. Trends want few; a log without trends
    wants all."""
    recent_items: int = Field(default=20, ge=0)
    """L, how many of a query's recent items its tower reads by an embedding of their own (0: none). Of ``amm``."""
    recent_alphas: tuple[float, ...] = (0.3, 0.03)
    """Step sizes α of the averages in which it reads them."""
    recent_dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of the recent items that an example loses in training."""
    embedding_dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of the embeddings' numbers that is zeroed in training; the others are scaled up."""
    query_id_dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of examples whose query id is replaced by the unknown one, which trains that one."""
    item_id_dropout: float = Field(default=0.1, ge=0, lt=1)
    batch_size: int = Field(default=512, ge=2)
    epochs: int = Field(default=12, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    """Of the first step; it falls to 0 in a straight line."""
    embedding_lr_scale: float = Field(default=1.0, gt=0)
    """The embeddings' learning rate, as a multiple of the layers'."""
    seed: int = 0

    @property
    def relu_head(self) -> bool:
        return self.preset == "paper" and self.paper.relu_head

    @property
    def history(self) -> int:
        """How many recent items the query tower reads by an embedding of their own."""
        return self.recent_items if self.preset == "amm" else 0

    @property
    def query_state_dim(self) -> int:
        """A_u: the width of a query's augmented vector."""
        if self.preset != "memories":
            return len(self.ema_alphas) * self.tower.output_dim
        return len(self.memory.rates) * self.memory.dim + self.memory.second + self.closed_rank

    @property
    def item_state_dim(self) -> int:
        """A_v: the width of an item's augmented vector."""
        if self.preset != "memories":
            return len(self.ema_alphas) * self.tower.output_dim
        return len(self.memory.item_rates) * self.memory.dim

    @property
    def signal_dim(self) -> int:
        """How many numbers of p_u, from the first on, a_v averages."""
        return self.memory.dim if self.preset == "memories" else self.tower.output_dim

    @property
    def item_alphas(self) -> tuple[float, ...]:
        """Step sizes of a_v."""
        return self.memory.item_rates if self.preset == "memories" else self.ema_alphas

    @property
    def closed_rank(self) -> int:
        """Dimensions of the closed form; 0: there is none.

        Raises:
            ValueError: its weight is still to be chosen (:mod:`evaluation.closed_form_choice`).
        """
        if self.closed_form.weight == "auto":
            raise ValueError("closed_form.weight is 'auto': a model is made of the number that was chosen for its log")
        return self.closed_form.rank if self.closed_form.weight else 0


ACTIVITY = DATConfig(preset="amm", ema_alphas=(), recent_items=0)
"""For a replay of counters alone."""
AMM = DATConfig(preset="amm", batch_size=256, epochs=6)
"""The point-in-time AMM: towers of eq. 1 with moving averages, replayed in time order."""
PAPER = DATConfig(
    preset="paper",
    batch_size=256,
    epochs=6,
    ema_alphas=(0.1,),
    temperature=1.0,
    recent_items=0,
    embedding_dropout=0.0,
    query_id_dropout=0.0,
    item_id_dropout=0.0,
)
"""The published model to the letter: eq. 1 with its last ReLU, eq. 2 by gradient, eq. 3, eq. 4 without temperature."""
