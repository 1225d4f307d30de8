"""Training: it learns, leaks nothing, repeats itself, and says when it collapses."""

import numpy as np
import pyarrow as pa
import pytest

from model.settings.model import PAPER, DATConfig
from tests.tiny import CUT_MS
from tests.training.data import CONFIG, GRADIENT, ITEMS, MEMORIES, SMALL, log, pair_of_a_moment, table, training_set
from training.diagnostics import health
from training.fit import fit
from training.trained_model import TrainedModel
from training.trainer import Trainer
from training.training_set import TrainingSet

pytestmark = pytest.mark.trains


def train(data: TrainingSet, config: DATConfig = CONFIG, **changes) -> TrainedModel:
    return fit(data, config.model_copy(update=changes), cut_ms=CUT_MS)


@pytest.fixture(scope="module")
def data() -> TrainingSet:
    return training_set()


@pytest.mark.parametrize(
    "config",
    [MEMORIES, CONFIG, CONFIG.model_copy(update={"ema_alphas": ()}), GRADIENT],
    ids=["memories", "amm", "two-tower", "paper"],
)
def test_every_preset_learns_which_films_a_query_likes(config):
    data = training_set(2_000)
    trained = train(data, config, epochs=12)
    assert trained.epochs[-1].loss_p < trained.epochs[0].loss_p
    assert not trained.epochs[-1].collapsed
    liked = np.array([[int(q[1:]) % 3 == int(i[1:]) % 3 for i in data.items.ids] for q in data.queries.ids])
    scores = trained.queries.vectors @ trained.items.vectors.T
    assert scores[liked].mean() > scores[~liked].mean() + 0.1


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(data):
    first, again, other = train(data, epochs=1), train(data, epochs=1), train(data, epochs=1, seed=1)
    assert first.queries.vectors.tobytes() == again.queries.vectors.tobytes()
    assert first.queries.vectors.tobytes() != other.queries.vectors.tobytes()


class Reads:
    """What the steps of an untrained model's epoch read: of each click, and of each candidate by (step, item)."""

    def __init__(self, data: TrainingSet, config: DATConfig = CONFIG):
        self.steps: list[np.ndarray] = []
        self.clicks: dict[int, bytes] = {}
        self.candidates: dict[tuple[int, int], bytes] = {}
        trainer = Trainer(data, config)
        for tower in (trainer.model.query_tower, trainer.model.item_tower):
            tower.dense_mean.zero_(), tower.dense_std.fill_(1)  # scales are learnt of all clicks

        def step(block, part, query, a_u, seen):
            batch = block.part(part)
            numbers = np.arange(batch.start, batch.stop)
            for k, number in enumerate(numbers):
                one = query.take(slice(k, k + 1))
                parts = one.rows, one.codes, one.dense, one.recent, a_u[k]
                self.clicks[int(number)] = b"".join(part.tobytes() for part in parts)
            rows = np.unique(np.r_[batch.clicks.items, batch.negatives.ravel()])
            item, a_v = trainer.replay.item_inputs(rows, block.time)
            for k, row in enumerate(rows):
                self.candidates[len(self.steps), int(row)] = item.dense[k].tobytes() + a_v[k].tobytes()
            self.steps.append(numbers)
            return [0.0] * 5

        trainer.step = step  # type: ignore[method-assign]
        trainer.epoch()


@pytest.mark.parametrize("changed", ["query_id", "item_id"])
@pytest.mark.parametrize("moments", [None, 60], ids=["times of their own", "times that are shared"])
def test_no_click_changes_what_a_click_of_its_moment_or_an_earlier_one_reads(moments, changed):
    window, at = log(moments=moments), 400
    other = window[changed].to_pylist()
    if moments is not None:  # the later of two clicks of one query could see what becomes of the earlier one
        at, then = pair_of_a_moment(window, at)
        if changed == "query_id":
            at = next(k for k in range(at - 1, 0, -1) if other[k] != other[then])
            assert window["event_time"][at] == window["event_time"][then]
        other[at] = other[then] if changed == "query_id" else "i1"
    else:
        other[at] = next(name for name in other if name != other[at])
    place = window.column_names.index(changed)
    before = training_set(window=window)
    after = training_set(window=window.set_column(place, changed, pa.array(other)))
    first, second = Reads(before), Reads(after)
    times = before.clicks.times
    until = times <= times[at]
    # Rows are by id and by first click, which stay: no id is new or gone.
    assert before.queries.ids == after.queries.ids and before.items.ids == after.items.ids
    for number in np.setdiff1d(np.flatnonzero(until), at if changed == "query_id" else []):
        assert first.clicks[number] == second.clicks[number]
    if changed == "query_id":
        assert any(first.clicks[n] != second.clicks[n] for n in np.flatnonzero(~until)), "later ones do read it"
    steps = [k for k, numbers in enumerate(first.steps) if until[numbers[0]]]
    shared = first.candidates.keys() & second.candidates.keys()
    early = {key for key in shared if key[0] in steps}
    assert len(early) > 500
    assert all(first.candidates[key] == second.candidates[key] for key in early)
    assert any(first.candidates[key] != second.candidates[key] for key in shared - early)


def test_a_click_reads_neither_itself_nor_the_others_of_its_moment():
    """A query's first click finds a_u empty; its second moment finds the p_v of the first."""
    query, item = np.array([0, 0, 1, 0, 1]), np.array([3, 6, 4, 9, 7])
    data = training_set(window=table(query, item, CUT_MS - np.array([9, 9, 9, 5, 5]) * 1_000), negatives=1)
    trainer = Trainer(data, CONFIG)
    clicks = data.clicks
    vectors = trainer.towers.item(*trainer.replay.item_inputs(clicks.items, int(clicks.times[0])))
    inputs, a_u = trainer.replay.observe(clicks, trainer.towers).before()
    assert not a_u[:3].any() and not inputs.recent[:3].any()
    averages = a_u[4].reshape(len(CONFIG.ema_alphas), -1)  # query 1 made one click before
    np.testing.assert_allclose(averages, np.tile(vectors[2], (len(averages), 1)), atol=1e-6)
    assert inputs.recent[3, :3].tolist() == [clicks.items[1] + 1, clicks.items[0] + 1, 0]


@pytest.mark.parametrize(
    ("size", "steps"), [(32, [32]), (34, [34]), (47, [47]), (49, [25, 24]), (96, [32, 32, 32]), (100, [34, 33, 33])]
)
def test_a_moment_larger_than_a_batch_is_one_block_in_even_steps(size, steps):
    rng = np.random.default_rng(0)
    total = size + 40
    times = CUT_MS - np.r_[np.full(size, 50), 40 - np.arange(40)] * 1_000
    data = training_set(window=table(rng.integers(0, 24, total), rng.integers(0, ITEMS, total), times))
    reads = Reads(data)
    assert [len(numbers) for numbers in reads.steps][: len(steps)] == steps
    assert np.concatenate(reads.steps).tolist() == list(range(total))
    of_moment = [{item: seen for (k, item), seen in reads.candidates.items() if k == n} for n in range(len(steps))]
    for item in set.intersection(*(set(step) for step in of_moment)):
        assert len({step[item] for step in of_moment}) == 1, "all steps of a moment read items as of its start"


def test_the_learning_rate_falls_to_nothing_in_a_straight_line(data, monkeypatch):
    trainer = Trainer(data, CONFIG.model_copy(update={"epochs": 2}))
    factors: list[float] = []
    monkeypatch.setattr(trainer.optimiser, "scale", factors.append)
    trainer.run()
    assert len(factors) == 2 * -(-600 // 32)
    np.testing.assert_allclose(factors[:-1], 1 - np.arange(len(factors) - 1) * 32 / 1_200, atol=0.03)
    assert factors[-1] < 0.05


def test_collapse_is_reported_and_health_is_not():
    rng = np.random.default_rng(0)
    assert health(rng.normal(size=(500, 8)))[0] > 7.5
    rank, dead = health(np.ones((500, 8)))
    assert rank == 1.0 and dead == 1.0
    half_dead = rng.normal(size=(500, 8)) * (np.arange(8) < 4)
    assert health(half_dead)[1] == 0.5


def test_the_model_to_the_letter_collapses_and_says_so():
    config = PAPER.model_copy(update={"tower": SMALL, "batch_size": 32, "learning_rate": 0.1, "epochs": 6})
    assert train(training_set(), config).epochs[-1].collapsed
