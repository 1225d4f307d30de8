"""The two Kafka clients of the stages, without a broker."""

import sys

import pytest

from model.settings.updater import UpdaterConfig
from streaming.kafka.port import ClientMissing, port_of


def test_a_client_that_is_not_installed_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    monkeypatch.delitem(sys.modules, "streaming.kafka.confluent", raising=False)
    with pytest.raises(ClientMissing, match="install the extra confluent"):
        port_of(UpdaterConfig(kafka_client="confluent-kafka"), "group", "clicks", "a")
