"""The nightly job as an Airflow DAG (Airflow 3): goes in the DAGs folder of a worker that has ``dat`` installed.

Two Variables: ``dat_command``, such as ``/opt/dat/dat`` (default ``dat``), and ``dat_home``. One run a day, each for
its own date. The job holds a lock, skips what is done, and goes on where a killed run was: Airflow may retry it freely.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

REFUSED = 3  # the gate kept the old bundle in service: nothing to retry, something to look at

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
    BashOperator(
        task_id="nightly",
        bash_command=(
            "{{ var.value.get('dat_command', 'dat') }} nightly"
            " --date {{ (dag_run.run_after - macros.timedelta(days=1)).strftime('%Y-%m-%d') }}"
            " --json {{ var.value.get('dat_home', '/var/lib/dat') }}/nightly-{{ run_id | replace(':', '') }}.json"
        ),
        env={"DAT_HOME": "{{ var.value.get('dat_home', '/var/lib/dat') }}"},
        append_env=True,
        skip_on_exit_code=REFUSED,
    )
