# The images of the three roles, and nothing in one that another needs:
#
#   docker build --target serve   -t dat-serve   .      # the service; `dat play` runs in it, too
#   docker build --target updater -t dat-updater .      # the two stages
#   docker build --target night   -t dat-night   .      # Spark, Java, the trainer
#
# With --build-arg LOCK=otel service and updater can send traces (the setting `tracing`).
#
# A release pins its base: --build-arg RELEASE=1 --build-arg BASE=python:3.11-slim-bookworm@sha256:… Containers run as
# uid 10001 on a read-only root; /data and /tmp are what they write to. Nothing is fetched when they run.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
RUN pip install --no-cache-dir uv
WORKDIR /src
COPY pyproject.toml README.md LICENSE requirements.lock ./
COPY requirements requirements
RUN uv venv /opt/dat
COPY cli cli
COPY devstack devstack
COPY evaluation evaluation
COPY feature_repo feature_repo
COPY model model
COPY serving serving
COPY spark_jobs spark_jobs
COPY streaming streaming
COPY training training
RUN uv build --quiet --wheel --out-dir /wheel .

# The libraries' own tests, a page of Feast's and headers are a sixth of an environment.
FROM build AS serve-env
ARG LOCK=serve
RUN uv pip install --no-cache --compile-bytecode --python /opt/dat/bin/python --no-deps --require-hashes -r requirements/${LOCK}.lock \
    && uv pip install --no-cache --compile-bytecode --python /opt/dat/bin/python --no-deps /wheel/*.whl \
    && find /opt/dat -type d \( -name tests -o -path '*/feast/ui/build' -o -path '*/pyarrow/include' \) -prune -exec rm -r {} +

FROM build AS updater-env
ARG LOCK=stream
RUN uv pip install --no-cache --compile-bytecode --python /opt/dat/bin/python --no-deps --require-hashes -r requirements/${LOCK}.lock \
    && uv pip install --no-cache --compile-bytecode --python /opt/dat/bin/python --no-deps /wheel/*.whl \
    && find /opt/dat -type d \( -name tests -o -path '*/feast/ui/build' -o -path '*/pyarrow/include' \) -prune -exec rm -r {} +

FROM ${BASE} AS role
ARG BASE
ARG RELEASE=
RUN case "${RELEASE:+release}$BASE" in release*@sha256:*) ;; release*) echo "a release pins BASE by digest" >&2; exit 1 ;; esac
RUN apt-get update && apt-get install -y --no-install-recommends tini && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 dat && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp dat \
    && install --directory --owner 10001 --group 10001 /data
ENV PATH=/opt/dat/bin:$PATH DAT_HOME=/data DAT_SCRATCH=/data HOME=/tmp PYTHONUNBUFFERED=1 DAT_LOG_FORMAT=json
WORKDIR /data
VOLUME /data
USER 10001:10001
ENTRYPOINT ["tini", "--", "dat"]

FROM role AS serve
COPY --from=serve-env /opt/dat /opt/dat
EXPOSE 8000
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]

FROM role AS updater
COPY --from=updater-env /opt/dat /opt/dat
ENV DAT_UPDATER__METRICS_HOST=0.0.0.0 DAT_UPDATER__METRICS_PORT=9100
EXPOSE 9100
CMD ["updater"]

FROM role AS night
USER root
# In its place, since to copy an environment of this size takes as long as to install it. Spark's Kafka connector
# and its file system on S3 are what a night elsewhere fetches from Maven Central.
RUN --mount=type=bind,from=build,source=/,target=/mnt/build \
    apt-get update && apt-get install -y --no-install-recommends openjdk-17-jre-headless && rm -rf /var/lib/apt/lists/* \
    && cp -a /mnt/build/opt/dat /opt/dat && cd /mnt/build/src && uv=/mnt/build/usr/local/bin/uv \
    && $uv pip install --no-cache --python /opt/dat/bin/python --no-deps --require-hashes -r requirements/night.lock \
    && $uv pip install --no-cache --python /opt/dat/bin/python --no-deps /mnt/build/wheel/*.whl \
    && find /opt/dat -type d \( -name tests -o -path '*/feast/ui/build' -o -path '*/pyarrow/include' -o -path '*/torch/include' \
        -o -path '*/nvidia/*/include' \) -prune -exec rm -r {} + \
    && mkdir /opt/dat/jars /tmp/home && cd /tmp/home \
    && HOME=/tmp/home REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt /opt/dat/bin/python -c "import shutil; \
from cli.spark_jars import kafka_jars, s3_jars; [shutil.copy(jar, '/opt/dat/jars') for jar in kafka_jars() + s3_jars()]" \
    && rm -rf /tmp/home
USER 10001:10001
ENV DAT_NIGHT__KAFKA_JARS=/opt/dat/jars
CMD ["nightly", "--date", "yesterday"]
