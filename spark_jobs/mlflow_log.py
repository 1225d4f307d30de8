"""Log a night's run to MLflow: what went in, what came out, what was decided; a published bundle as a model version.

MLflow's own variables say where (``MLFLOW_TRACKING_URI``, ``MLFLOW_REGISTRY_URI``, ``MLFLOW_EXPERIMENT_NAME``); without
them it is ``mlflow.db`` of the home folder, which ``mlflow ui --backend-store-uri sqlite:///HOME/mlflow.db`` shows. The
log is a convenience: that it fails never fails the night.
"""

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from model.bundle import Bundle, Manifest
from model.settings.night import NightConfig
from spark_jobs.gate import Verdict
from training.diagnostics import EpochReport

_LOG = logging.getLogger(__name__)


def log(
    home: Path, bundle: Bundle, history: list[EpochReport], verdict: Verdict, data_card: dict[str, Any],
    config: NightConfig,
) -> None:  # fmt: skip
    """One run, named after the bundle's version: parameters, metrics (by epoch and at last), report, data card, lineage
    to data and code. A version that was logged whole is not logged again; what a crash left is closed.
    """
    try:
        _log(home, bundle, history, verdict, data_card, config)
    except Exception as error:
        _LOG.warning("the experiment of %s was not logged: %s", bundle.version, error)


def tracking_uri(home: Path) -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home.absolute() / 'mlflow.db'}"


def _log(
    home: Path, bundle: Bundle, history: list[EpochReport], verdict: Verdict, data_card: dict[str, Any],
    config: NightConfig,
) -> None:  # fmt: skip
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag

    for name in ("mlflow", "alembic"):  # it tells of every table that it makes
        logging.getLogger(name).setLevel(logging.ERROR)
    manifest = bundle.manifest
    client = MlflowClient(tracking_uri(home), os.environ.get("MLFLOW_REGISTRY_URI"))
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or manifest.dataset
    experiment = client.get_experiment_by_name(name)
    # A server says itself where artifacts go.
    artifacts = None if "MLFLOW_TRACKING_URI" in os.environ else (home.absolute() / "mlruns").as_uri()
    number = experiment.experiment_id if experiment else client.create_experiment(name, artifact_location=artifacts)
    for run in client.search_runs([number], f"tags.bundle = '{manifest.version}'"):
        if run.info.status == "FINISHED":
            return
        client.set_terminated(run.info.run_id, "KILLED")
    created = client.create_run(number, run_name=manifest.version, tags={"bundle": manifest.version})
    run = created.info.run_id
    tags = {
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "window": f"{manifest.window[0]:%Y-%m-%d} to {manifest.window[1]:%Y-%m-%d}",
        "kafka_offsets": json.dumps(manifest.offsets),
        **manifest.lineage,
    }
    finals = manifest.metrics | {
        f"{key} of {part}": value for part, values in manifest.parts.items() for key, value in values.items()
    }
    client.log_batch(
        run,
        metrics=[Metric(_plain(name), value, 0, 0) for name, value in finals.items()]
        + [
            Metric(f"epoch_{name}", float(value), 0, report.epoch)
            for report in history
            for name, value in asdict(report).items()
            if name != "epoch"
        ],
        params=[Param(name, str(value)) for name, value in _flat(config.model_dump()).items()],
        tags=[RunTag(name, value) for name, value in tags.items()],
    )
    source = json.dumps({"training_set": data_card["sha256"], "start": data_card["start"], "cut": data_card["cut"]})
    data = Dataset(name=f"{manifest.dataset} before {manifest.window[1]:%Y-%m-%d}", digest=data_card["sha256"][:36],
                   source_type="local", source=source)  # fmt: skip
    client.log_inputs(run, datasets=[DatasetInput(dataset=data)])
    client.log_text(run, manifest.model_dump_json(indent=2), "manifest.json")
    client.log_dict(run, data_card, "data_card.json")
    client.log_dict(run, verdict.model_dump(), "verdict.json")
    client.set_terminated(run)
    if verdict.verdict == "published":
        # A server takes no other source than the run's artifacts; the tag names the bundle of the home folder.
        _register(client, manifest, created.info.artifact_uri, run)


def _register(client: Any, manifest: Manifest, source: str, run: str) -> None:
    """The bundle as a version of the dataset's registered model, ``dat-<dataset>``."""
    name = f"dat-{manifest.dataset}"
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description="Bundles that passed the gate of dat nightly")
    client.create_model_version(name, source, run_id=run, tags={"bundle": manifest.version} | manifest.lineage)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``model.tower.hidden``."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _plain(name: str) -> str:
    """MLflow's names of metrics allow no +."""
    return name.replace("+", " or more")
