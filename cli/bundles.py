"""``dat bundles``: what the nights have published, and which one is in service."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import Home
from cli.progress import console
from model.settings.settings import load_settings

if TYPE_CHECKING:
    from model.bundle import Manifest
    from model.bundle_store import BundleStore

RATES = ("static_hr50", "static_hr100", "static_mrr10", "live_hr50", "live_hr100", "live_mrr10")


class NothingEarlier(ValueError):
    """There is no bundle to roll back to."""


def bundles(
    home: Home = None,
    promote: Annotated[str | None, typer.Option(help="Put this version into service.")] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Put the version before the current one back.")] = False,
    compare: Annotated[
        tuple[str, str] | None, typer.Option(help="Show two versions side by side.", metavar="A B")
    ] = None,
) -> None:
    """List the published bundles, oldest first; promote one, or roll back to the one before, in one atomic step."""
    from model.shared_bundles import open_bundles

    settings = load_settings(home=home)
    shelf = open_bundles(settings.home, settings.bundles)
    if compare:
        _compare(*(shelf.described(version) for version in compare))
        return
    if rollback:
        promote = _before(shelf)
    if promote:
        shelf.promote(promote)
    _list(shelf)


def _before(shelf: "BundleStore") -> str:
    """The version to roll back to: the one before that in service."""
    current, versions = shelf.current(), shelf.versions()
    earlier = versions[: versions.index(current)] if current in versions else []
    if not earlier:
        raise NothingEarlier(f"there is no bundle before {current or 'the first'} in {shelf.where}")
    return earlier[-1]


def _list(shelf: "BundleStore") -> None:
    from rich.table import Column, Table

    whole = Column("version", no_wrap=True), Column("parent", no_wrap=True)  # to be copied into a command
    table = Table("", whole[0], "dataset", "window ends", "queries and items", "HR@100 static → live", whole[1])
    versions, current = shelf.versions(), shelf.current()
    for version in versions:
        manifest = shelf.manifest(version)
        rates = [manifest.metrics.get(f"{name}_hr100") for name in ("static", "live")]
        table.add_row(
            "●" if version == current else "",
            version,
            manifest.dataset,
            f"{manifest.window[1]:%Y-%m-%d}",
            " and ".join(f"{int(manifest.metrics[key]):,}" for key in ("queries", "items") if key in manifest.metrics),
            " → ".join(map(_rate, rates)),
            manifest.lineage.get("parent", ""),
        )
    console.print(table if versions else f"no bundle is published in {shelf.where} yet")


def _compare(one: "Manifest", two: "Manifest") -> None:
    """Two manifests: what they were made from where that differs, then metrics, over all clicks and by part."""
    from rich.table import Table

    made = Table("", one.version, two.version, title="made from, where they differ")
    for name, a, b in zip(_made_from(one), _made_from(one).values(), _made_from(two).values(), strict=True):
        if a != b:
            made.add_row(name, a, b)
    console.print(made)
    if one.window[1] != two.window[1]:
        console.print("[dim]each is measured on the day after its own window: the two days differ[/]")
    table = Table("", "", one.version, two.version, "difference", title="metrics")
    for part in ["all clicks", *(one.parts | two.parts)]:
        sides = [m.metrics if part == "all clicks" else m.parts.get(part, {}) for m in (one, two)]
        counts = [side.get("static_clicks" if part == "all clicks" else "clicks", 0) for side in sides]
        if not any(counts):
            continue
        table.add_section()
        table.add_row(part, "clicks", *(f"{int(count):,}" for count in counts), "")
        for key in RATES:
            first, second = (side.get(key) if count else None for side, count in zip(sides, counts, strict=True))
            if first is not None or second is not None:
                change = "" if first is None or second is None else f"{second - first:+.3f}"
                name = key.replace("_hr", " HR@").replace("_mrr10", " MRR×10")
                table.add_row("", name, _rate(first), _rate(second), change)
    console.print(table)


def _made_from(manifest: "Manifest") -> dict[str, str]:
    config = manifest.config.model_dump()
    return {
        "window": f"{manifest.window[0]:%Y-%m-%d} to {manifest.window[1]:%Y-%m-%d}",
        "created": f"{manifest.created:%Y-%m-%d %H:%M}",
        "parent": manifest.lineage.get("parent", ""),
        **{key: manifest.lineage.get(key, "")[:12] for key in ("training_set", "package", "commit")},
        **{f"model.{name}": str(value) for name, value in config.items()},
    }


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
