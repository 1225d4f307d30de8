"""Every format is read right or refused in words that lead to the fault; the table in docs/ says which."""

import re
from pathlib import Path

import pytest

from feature_repo.card import CardError, load_card
from feature_repo.reader.clicks import read_clicks
from feature_repo.reader.dataset import check_dataset
from tests.feature_repo.format_table import TABLE, table
from tests.feature_repo.formats import FORMATS, Format


@pytest.mark.long
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_log_is_read_row_by_row_as_it_is_or_refused_in_one_sentence(form: Format, tmp_path: Path):
    card_file = form.bring(tmp_path / "log")
    if form.refused:
        with pytest.raises(CardError, match=form.refused) as refusal:
            card = load_card(card_file)
            check_dataset(card, Path(card.folder), 0.01)
        assert len(str(refusal.value).splitlines()) == 1
        return
    card = load_card(card_file)
    clicks = read_clicks(card, Path(card.folder))
    rows = [(row["query_id"], row["item_id"], row["event_time"]) for row in clicks.to_pylist()]
    assert sorted(rows) == sorted(form.expected)
    assert clicks["event_time"].to_pylist() == sorted(clicks["event_time"].to_pylist())
    report = check_dataset(card, Path(card.folder), 0.01)
    assert report.dropped == form.dropped and report.duplicates == 0
    assert report.rows == len(form.expected) == report.rows_read - sum(form.dropped.values())
    assert (report.queries, report.items) == tuple(len({row[n] for row in form.expected}) for n in (0, 1))
    assert card.clicks.timeless or sum(report.days.values()) == report.rows
    assert {(row["query_id"], row["item_id"], row["event_time"]) for row in report.examples} <= set(form.expected)
    assert report.examples
    said = " ".join(report.problems)
    assert form.note in said
    assert form.note or not re.search("Latin-1|quoting", said), "what is not odd is not remarked on"


@pytest.mark.long
def test_the_table_of_formats_in_the_docs_is_what_the_reader_does(tmp_path: Path):
    assert TABLE.read_text() == table(tmp_path), "run: python -m tests.feature_repo.format_table"
