"""What ``feast apply`` finds in this folder. The dataset is ``$DAT_DATASET``, the home ``$DAT_HOME``."""

import os
from pathlib import Path

from feature_repo.card import load_card
from feature_repo.place import shared_place
from feature_repo.store import write_empty_history
from feature_repo.views import define

_home = shared_place(os.environ.get("DAT_HOME", Path(__file__).parents[1] / ".dat"))
_defined = define(load_card(os.environ.get("DAT_DATASET", "movielens-100k")), _home / "offline")
write_empty_history(_defined, _home / "offline")

query, item = _defined.entities["query"], _defined.entities["item"]
query_profile, item_profile = _defined.views["query_profile"], _defined.views["item_profile"]
query_activity, item_activity = _defined.views["query_activity"], _defined.views["item_activity"]
query_augmented, item_augmented = _defined.views["query_augmented"], _defined.views["item_augmented"]
query_history, query_history_push = _defined.views["query_history"], _defined.sources["query_history_push"]
query_activity_push, item_activity_push = (
    _defined.sources["query_activity_push"],
    _defined.sources["item_activity_push"],
)
query_augmented_push = _defined.sources["query_augmented_push"]
item_augmented_push = _defined.sources["item_augmented_push"]
query_tower, item_tower = _defined.services["query_tower"], _defined.services["item_tower"]
