"""The contract between a bundle and the feature services: a tower reads exactly what it was trained to read."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from feature_repo.rows_format import FORMAT, TAG
from model.bundle import Manifest

if TYPE_CHECKING:
    from feast import FeatureStore

Services = Mapping[str, Mapping[str, str]]


class ContractError(RuntimeError):
    """The registered feature services are not those that the bundle was trained with; both lists are in the message."""


def registered_services(store: "FeatureStore", names: tuple[str, ...] = ("query_tower", "item_tower")) -> Services:
    """Feature service → {``view__feature``: type}, as registered in Feast: what a manifest records as ``services``.

    Raises:
        ContractError: a service is not registered, or by a release whose rows this one does not read.
    """
    from feature_repo.store import service_fields

    known = {service.name: service.tags.get(TAG, "1") for service in store.list_feature_services()}
    missing = [name for name in names if name not in known]
    if missing:
        raise ContractError(
            f"the feature store has no feature service {', '.join(missing)}: register the definitions first "
            f"(feast apply); it has: {', '.join(sorted(known)) or 'none'}"
        )
    other = {known[name] for name in names} - {str(FORMAT - 1), str(FORMAT)}
    if other:
        raise ContractError(
            f"the feature services are registered in format {', '.join(sorted(other))}, and this release reads "
            f"{max(1, FORMAT - 1)} to {FORMAT}: run the release that registered them, or register this one's with its "
            "next bundle (dat nightly)"
        )
    return {name: service_fields(store, name) for name in names}


def check_services(store: "FeatureStore", manifest: Manifest) -> None:
    """Refuse a bundle whose towers were trained on other features than those that are registered.

    Raises:
        ContractError: names or types differ.
    """
    registered = registered_services(store, tuple(manifest.services))
    problems = [
        f"{name} of bundle {manifest.version} does not fit the registered feature service:\n"
        + side_by_side(trained, registered[name])
        for name, trained in manifest.services.items()
        if dict(trained) != dict(registered[name])
    ]
    if problems:
        raise ContractError(
            "\n".join([*problems, "retrain (dat nightly), or register the definitions it was trained with"])
        )


def side_by_side(trained: Mapping[str, str], registered: Mapping[str, str]) -> str:
    """Two feature lists in two columns, differences marked."""
    lines = [("", "trained with", "registered")]
    for name in sorted({*trained, *registered}):
        left, right = (f"{name} {side[name]}" if name in side else "—" for side in (trained, registered))
        lines.append(("" if left == right else "≠", left, right))
    width = max(len(left) for _, left, _ in lines)
    return "\n".join(f"  {mark:1} {left:<{width}}  {right}" for mark, left, right in lines)
