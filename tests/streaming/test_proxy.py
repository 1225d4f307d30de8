"""Requests of transactions that are held, whose answers are lost, and that come again late: nothing is torn."""

import pytest

from devstack.chaos.tampering import TamperPlan, TamperRun
from streaming.kafka.clients import TransactionalProducer, quiet_kafka


@pytest.fixture(autouse=True)
def quiet():
    quiet_kafka()


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.server
def test_tampered_requests_tear_no_transaction(tmp_path):
    result = TamperRun(tmp_path, TamperPlan(1_000)).run()
    assert result["torn"] == 0, result
    assert result["tampered"] >= 1_000
    assert result["max_difference"] <= 1e-5


@pytest.mark.slow
@pytest.mark.server
def test_without_a_new_epoch_after_a_request_was_sent_again_they_do(tmp_path, monkeypatch):
    monkeypatch.setattr(TransactionalProducer, "sent_again", False)
    result = TamperRun(tmp_path, TamperPlan(600, chance=0.2, patience_s=60)).run()
    assert result["torn"] > 0
