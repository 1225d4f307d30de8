"""What is wrong with a log as a whole is said with what to do, and doing it helps."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from evaluation.splits import make_split
from feature_repo.card import load_card
from feature_repo.reader.dataset import read_dataset

FIRST = datetime(2025, 3, 3, tzinfo=UTC)
Rows = Iterable[tuple[str, str, datetime]]


def card_of(folder: Path, rows: Rows, top: str = "", unit: str = "date", more: str = "") -> Path:
    lines = ["who,what,at", *(f"{query},{item},{at.isoformat()}" for query, item, at in rows)]
    (folder / "log.csv").write_text("\n".join(lines))
    (folder / "card.toml").write_text(
        f'name = "x"\ntitle = "x"\n{top}[clicks]\npath = "log.csv"\nquery = "who"\nitem = "what"\ntime = "at"\n'
        f'time_unit = "{unit}"\n{more}'
    )
    return folder / "card.toml"


def problems_of(path: Path) -> list[str]:
    card = load_card(path)
    problems = read_dataset(card, Path(card.folder), 0).report.problems
    return [problem for problem in problems if "partial" not in problem and "HR@100" not in problem]


def rows_over(days: int, count: int) -> list[tuple[str, str, datetime]]:
    return [(f"u{n * 7 % 61}", f"i{n * 5 % 43}", FIRST + timedelta(days=days * n / count)) for n in range(count)]


def test_a_sparse_log_is_told_which_day_gives_enough_to_learn_from(tmp_path):
    rows = rows_over(300, 4_000)
    (problem,) = problems_of(card_of(tmp_path, rows))
    assert "10 days of 1d have 133 of 4,000 clicks" in problem and 'day = "14d"' in problem
    path = card_of(tmp_path, rows, 'day = "14d"\n')
    assert not problems_of(path)
    card = load_card(path)
    log = read_dataset(card, tmp_path, 0)
    assert len(make_split(log.clicks, log.catalogues, card, "night").data.clicks) > 1_000


def test_a_dense_log_and_a_short_one_are_not_called_sparse(tmp_path):
    assert not problems_of(card_of(tmp_path, rows_over(40, 8_000)))
    assert not problems_of(card_of(tmp_path, rows_over(8, 200)))


def test_clicks_of_one_moment_can_be_learnt_from_in_their_order(tmp_path):
    rows = [(query, item, FIRST) for query, item, _ in rows_over(1, 300)]
    (problem,) = problems_of(card_of(tmp_path, rows))
    assert "one moment" in problem and 'time_unit = "order"' in problem and "--protocol last-out" in problem
    path = card_of(tmp_path, rows, unit="order")
    assert not problems_of(path)
    card = load_card(path)
    log = read_dataset(card, tmp_path, 0)
    assert len(make_split(log.clicks, log.catalogues, card, "last-out").test)


def test_a_robot_is_named_with_the_line_that_leaves_it_out(tmp_path):
    rows = rows_over(12, 3_000) + [("bot's", f"i{n % 43}", FIRST + timedelta(minutes=n)) for n in range(1_500)]
    (problem,) = problems_of(card_of(tmp_path, rows))
    assert "bot's has 1,500 of 4,500 clicks (33%)" in problem
    line = problem.split("Leave it out (")[1].split("), or")[0]
    assert not problems_of(card_of(tmp_path, rows, more=f"{line}\n"))


def test_a_log_of_few_items_is_told_that_its_hit_rates_say_nothing(tmp_path):
    card = load_card(card_of(tmp_path, rows_over(8, 400)))
    problems = read_dataset(card, tmp_path, 0).report.problems
    assert any("there are 43 items" in problem and "compare by MRR" in problem for problem in problems)
