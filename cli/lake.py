"""``dat lake``: land clicks from Kafka, at once or as they come."""

from typing import Annotated

import typer

from cli.options import Bootstrap, Data, Home
from cli.preflight import claim_home
from cli.progress import TerminalProgress, console
from model.settings.settings import load_settings


def lake(
    data: Data = None,
    home: Home = None,
    bootstrap: Bootstrap = None,
    follow: Annotated[bool, typer.Option("--follow", help="Stay, and land new clicks as they come.")] = False,
    every: Annotated[str, typer.Option(help="How often, with --follow: a number and a unit.")] = "1 minute",
) -> None:
    """Land the clicks that have arrived on Kafka since the last time as Parquet by event day, each exactly once.

    The nightly job does so itself. With --follow this process stays and lands them all day, and the night uses what it
    has landed. It ends on Ctrl-C; after that, or after a crash, the next one goes on where it was.
    """
    from cli.preflight import check_disk

    settings = load_settings(home=home, dataset=data, bootstrap=bootstrap)
    claim_home(settings)
    check_disk(settings.home)
    from cli.nightly import reach_kafka
    from cli.spark_jars import spark_jars
    from devstack.broker import java
    from spark_jobs.lake import LakeError, dates
    from spark_jobs.land_kafka import Ledger, land_new
    from spark_jobs.session import reach_store, spark_session
    from spark_jobs.shared_home import check_shared

    java()
    reach_kafka(settings)
    root, where, progress = settings.home.absolute(), settings.updater.bootstrap, TerminalProgress()
    jars = spark_jars(settings.night.kafka_jars, True, settings.home_url)
    with spark_session(settings.night, root / "spark", jars) as spark:
        reach_store(spark, settings.shared)
        check_shared(spark, settings.shared)
        if follow:
            console.print(f"landing clicks from {where} every {every}")
        with progress.stage("land clicks from Kafka"):
            ours = land_new(
                spark,
                settings.card,
                settings.shared,
                settings.updater,
                every if follow else None,
                settings.night.lake_batch,
            )
        if not ours:
            raise LakeError(f"another process lands clicks into {settings.shared / 'lake'}; end it first")
        clicks = settings.shared / "lake" / "clicks"
        landed, ledger = dates(clicks), Ledger.load(clicks)
    for gap in ledger.gaps if ledger else ():
        console.print(f"[red]lost[/]: Kafka had deleted {gap} before they were landed")
    console.print(f"the lake has clicks of {len(landed)} days, to {landed[-1]}" if landed else "the lake is empty")
