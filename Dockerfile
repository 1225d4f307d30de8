# One image for every role: the nightly job, the updater's stages, the retrieval service.
FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install -y --no-install-recommends openjdk-17-jre-headless \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY requirements.lock .
RUN pip install --no-cache-dir uv && uv pip install --system --no-cache -r requirements.lock
COPY . .
RUN uv pip install --system --no-cache --no-deps .
ENV DAT_HOME=/data DAT_SERVING__CLOCK=auto
VOLUME /data
ENTRYPOINT ["dat"]
CMD ["--help"]
