"""Fixtures that the whole suite shares."""

from collections.abc import Iterator

import pytest

from cli.broker import LocalBroker


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """One real broker for the session. Tests use topics and group prefixes of their own."""
    with LocalBroker(tmp_path_factory.mktemp("kafka")) as running:
        yield running
