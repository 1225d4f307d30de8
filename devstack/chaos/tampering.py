"""An updater whose requests go through a proxy that holds, loses and repeats them: no transaction may be torn."""

import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devstack.broker import LocalBroker
from devstack.chaos.faults import PARTITIONS, ChaosError
from devstack.chaos.proxy import Proxy
from devstack.chaos.verify import SIDES, compare, last_rows
from devstack.ports import free_port
from devstack.synthetic_bundle import made_up_bundle, made_up_clicks, made_up_home
from model.bundle import Bundle
from model.click import Click
from model.settings.updater import KafkaConnection, UpdaterConfig


@dataclass(frozen=True)
class TamperPlan:
    """At least so many requests are tampered with, each with this chance."""

    requests: int = 1_000
    chance: float = 0.1
    queries: int = 9
    items: int = 12
    seed: int = 0
    patience_s: float = 240.0


class TamperRun:
    """Clicks go straight to the broker; both stages reach it through the proxy, in small transactions."""

    def __init__(self, folder: Path, plan: TamperPlan):
        self.folder, self.plan = folder, plan
        self.port = free_port()

    def run(self) -> dict[str, Any]:
        """Everything; returns the summary: ``torn`` are clicks that one topic shows and another does not, or twice.

        Raises:
            ChaosError: the clicks are not worked on in time.
        """
        from feature_repo.store import open_store
        from streaming.kafka.topics import create_topics
        from streaming.updater import run_updater

        plan, began = self.plan, time.monotonic()
        bundle = made_up_bundle(plan.queries, plan.items, plan.seed)
        made_up_home(self.folder / "home", bundle)
        store, failed, stop = open_store(self.folder / "home"), [], threading.Event()
        broker = LocalBroker(self.folder / "kafka", properties=self._properties)
        broker.start()
        try:
            direct = KafkaConnection(bootstrap=broker.bootstrap)
            create_topics(direct, PARTITIONS)
            with Proxy(self.port, int(broker.bootstrap.split(":")[1]) + 1, plan.chance, plan.seed) as proxy:
                config = UpdaterConfig(bootstrap=f"127.0.0.1:{self.port}", batch_clicks=7)

                def update() -> None:
                    try:
                        run_updater(bundle, store, config, stop, feast_sink=False)
                    except Exception as error:  # told below
                        failed.append(error)

                updater = threading.Thread(target=update)
                updater.start()
                try:
                    result = self._clicks(direct, bundle, proxy, failed)
                finally:
                    stop.set()
                    updater.join()
                return result | {"tampered": proxy.tampered, "seconds": round(time.monotonic() - began, 1)}
        finally:
            broker.stop()

    def _properties(self, ports: dict[str, int]) -> dict[str, str]:
        own, behind = ports["port"], ports["port"] + 1
        return {
            "listeners": f"PLAINTEXT://127.0.0.1:{own},CONTROLLER://127.0.0.1:{ports['controller']},"
            f"PROXIED://127.0.0.1:{behind}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{own},PROXIED://127.0.0.1:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT",
        }

    def _clicks(self, direct: KafkaConnection, bundle: Bundle, proxy: Proxy, failed: list[Exception]) -> dict[str, Any]:
        """Some clicks after the other, each lot worked on before the next, until enough has been tampered with."""
        from streaming.clicks import ClickWriter

        plan, clicks, writer, number = self.plan, list[Click](), ClickWriter(direct), 0
        result: dict[str, Any] = {}
        while proxy.tampered < plan.requests:
            some = made_up_clicks(40, plan.queries, plan.items, plan.seed + number, new_queries=0)
            number += 1
            clicks += some
            for future in [writer.send(click) for click in some]:
                future.get(60)
            deadline = time.monotonic() + plan.patience_s
            while True:
                if failed:
                    raise ChaosError(f"the updater has ended: {failed[0]!r}") from failed[0]
                rows = {side: last_rows(direct, bundle, side) for side in SIDES}
                counts = {side: Counter({key: row["folded"] for key, row in rows[side].items()}) for side in SIDES}
                enough = all(sum(of.values()) >= len(clicks) for of in counts.values())
                if enough or time.monotonic() > deadline:
                    break
                time.sleep(0.05)
            result = compare(bundle, clicks, rows)
            result["torn"] = result["lost"] + result["doubled"]
            if result["torn"]:
                break
        writer.close()
        return result | {"clicks": len(clicks)}
