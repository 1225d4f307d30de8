"""The nightly job as an Airflow DAG (Airflow 3): goes in the DAGs folder of a worker that has ``dat`` installed.

Variables: ``dat_command``, such as ``/opt/dat/dat`` (default ``dat``), and the settings ``dat_home``, ``dat_dataset``,
``dat_kafka``, ``dat_redis``, ``dat_bundles``, and where the home is a URL ``dat_scratch``; secrets belong into files
(``DAT_SECRETS_DIR`` of the worker). One run a day, each for its own date, and one at a time. The job skips what is
done, and goes on where a killed run was: Airflow may retry it freely.
A night that the gate refuses fails its task at once, without a retry, so that whoever is told of failures is told.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

REFUSED = 3  # the gate kept the old bundle in service: nothing to retry, something to look at


class Nightly(BashOperator):
    """A command whose exit status 3 fails the task for good; any other but 0 may be tried again."""

    def execute(self, context):
        try:
            return super().execute(context)
        except AirflowSkipException as refused:
            raise AirflowFailException("the gate refused the night's model: see the end of this log") from refused


with DAG(
    dag_id="dat_nightly",
    description="Land clicks, build the training set, retrain DAT, publish through the gate",
    schedule="30 1 * * *",  # UTC, like all dates of the lake; half an hour for late clicks
    start_date=datetime(2025, 1, 1),
    catchup=False,  # to make up for missed nights: dat nightly --from D --to D
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10), "execution_timeout": timedelta(hours=6)},
    tags=["dat"],
) as dag:
    # The test day is the one that has ended before the run, also where the run itself comes late.
    Nightly(
        task_id="nightly",
        bash_command=(
            "{{ var.value.get('dat_command', 'dat') }} nightly"
            " --date {{ (dag_run.run_after - macros.timedelta(days=1)).strftime('%Y-%m-%d') }}"
            " --json {{ var.value.get('dat_scratch', var.value.get('dat_home', '/var/lib/dat')) }}"
            "/nightly-{{ run_id | replace(':', '') }}.json"
        ),
        env={
            "DAT_HOME": "{{ var.value.get('dat_home', '/var/lib/dat') }}",
            "DAT_SCRATCH": "{{ var.value.get('dat_scratch', '/var/lib/dat') }}",
            "DAT_DATASET": "{{ var.value.get('dat_dataset', 'movielens-100k') }}",
            "DAT_UPDATER__BOOTSTRAP": "{{ var.value.get('dat_kafka', '127.0.0.1:9092') }}",
            "DAT_REDIS": "{{ var.value.get('dat_redis', '') }}",
            "DAT_BUNDLES": "{{ var.value.get('dat_bundles', '') }}",
        },
        append_env=True,
        skip_on_exit_code=REFUSED,
    )
