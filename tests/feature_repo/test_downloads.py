"""A dataset that lies in a wheel: fetched once, whoever asks for it."""

import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from feature_repo.source import dataset_folder
from tests.tiny import TINY


@pytest.mark.long
def test_two_that_fetch_a_dataset_at_once_both_find_it_whole(tmp_path: Path):
    wheel = tmp_path / "clicks-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("clicks/log/clicks.csv", "user,film,at\n")
        file.writestr("clicks-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: clicks\nVersion: 1.0\n")
        file.writestr("clicks-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("clicks-1.0.dist-info/RECORD", "")
    card = TINY.model_copy(update={"folder": f"wheel:{wheel}:clicks/log"})
    cache = tmp_path / "downloads"
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: dataset_folder(card, tmp_path, cache), range(4)))
    assert set(found) == {cache / card.name}
    assert [path.name for path in found[0].iterdir()] == ["clicks.csv"]
    assert list(cache.iterdir()) == found[:1], "nothing is left beside it"
