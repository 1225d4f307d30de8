"""Systems that share a cluster have a prefix each, and nothing else in common."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from model.settings.updater import KafkaConnection
from tests.conftest import fresh_topics
from tests.streaming.loop import folds, produce, running, some_clicks, truth, updater_config
from tests.tiny import tiny_bundle, tiny_store


def test_two_systems_of_one_bundle_on_one_cluster_count_their_own_clicks_alone(broker, tmp_path: Path):
    bundle = tiny_bundle("shared")
    systems = {
        fresh_topics(broker): (tiny_store(tmp_path / name, queries=9, items=12), some_clicks(40, seed=seed))
        for seed, name in enumerate(("shop", "news"))
    }
    (shop, (shop_store, _)), (news, (news_store, _)) = systems.items()
    with (
        running(bundle, shop_store, updater_config(shop)),
        running(bundle, news_store, updater_config(news)),
    ):
        for kafka, (_, clicks) in systems.items():
            produce(kafka, clicks)
        for kafka, (_, clicks) in systems.items():
            for side, counts in zip(("query", "item"), truth(clicks), strict=True):
                folds(kafka, side, bundle, counts, f"{kafka.prefix} folds its clicks")


def test_a_prefix_that_kafka_would_not_take_is_refused():
    with pytest.raises(ValidationError, match="prefix"):
        KafkaConnection(prefix="a shop/")
