"""``dat bundles``: what the nights have published, and which one is in service."""

from typing import Annotated

import typer

from cli.progress import console
from cli.settings import Home, load_settings


class NothingEarlier(ValueError):
    """There is no bundle to roll back to."""


def bundles(
    home: Home = None,
    promote: Annotated[str | None, typer.Option(help="Put this version into service.")] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Put the version before the current one back.")] = False,
) -> None:
    """List the published bundles, oldest first; promote one, or roll back to the one before, in one atomic step."""
    from rich.table import Table

    from training.bundle import Shelf

    shelf = Shelf(load_settings(home=home).home / "bundles")
    versions = shelf.versions()
    if rollback:
        current = shelf.current()
        earlier = versions[: versions.index(current)] if current in versions else []
        if not earlier:
            raise NothingEarlier(f"there is no bundle before {current or 'the first'} in {shelf.folder}")
        promote = earlier[-1]
    if promote:
        shelf.promote(promote)
    table = Table("", "version", "dataset", "window ends", "queries and items", "HR@100 static → live", "parent")
    for version in versions:
        manifest = shelf.manifest(version)
        rates = [manifest.metrics.get(f"{name}_hr100") for name in ("static", "live")]
        table.add_row(
            "●" if version == shelf.current() else "",
            version,
            manifest.dataset,
            f"{manifest.window[1]:%Y-%m-%d}",
            " and ".join(f"{int(manifest.metrics[key]):,}" for key in ("queries", "items") if key in manifest.metrics),
            " → ".join("–" if rate is None else f"{rate:.3f}" for rate in rates),
            manifest.lineage.get("parent", ""),
        )
    console.print(table if versions else f"no bundle is published in {shelf.folder} yet")
