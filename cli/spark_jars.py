"""The jars that a night needs beside Spark's own: from a folder of the settings, or from Maven Central, once."""

import os
import re
from pathlib import Path

SDK = "2.29.52"
"""Of Amazon's SDK. Later versions send checksums that other stores of the protocol do not take."""
_PARTS = (
    "annotations", "apache-client", "arns", "auth", "aws-core", "aws-query-protocol", "aws-xml-protocol", "checksums",
    "checksums-spi", "crt-core", "endpoints-spi", "http-auth", "http-auth-aws", "http-auth-aws-eventstream",
    "http-auth-spi", "http-client-spi", "identity-spi", "json-utils", "metrics-spi", "netty-nio-client", "profiles",
    "protocol-core", "regions", "retries", "retries-spi", "s3", "s3-transfer-manager", "sdk-core", "sts",
    "third-party-jackson-core", "utils",
)  # fmt: skip


def spark_jars(folder: Path | None, kafka: bool, home_url: str | None) -> list[Path]:
    """What Spark is given: Kafka's connector, and S3's file system for a home there.

    Args:
        folder: Has them all; None: they are fetched. kafka: Whether clicks come from Kafka.
    """
    if folder is not None:
        return sorted(folder.glob("*.jar")) if kafka or home_url else []
    return [*(kafka_jars() if kafka else ()), *(s3_jars() if home_url and home_url.startswith("s3:") else ())]


def kafka_jars() -> list[Path]:
    """Spark's Kafka connector, of the version of the installed Spark, less what Spark itself ships."""
    import pyspark

    from devstack.maven import fetch_jars

    own = {path.name for path in _own_jars()}
    found = fetch_jars(f"org.apache.spark:spark-sql-kafka-0-10_2.13:{pyspark.__version__}")
    return [jar for jar in found if jar.name not in own]


def s3_jars() -> list[Path]:
    """Hadoop's file system on S3, of the installed Spark's version of Hadoop, and the parts of Amazon's SDK that it
    needs (11 MB; Hadoop itself asks for all parts, 500 MB). None, if Spark ships it, or is not of Hadoop 3.
    """
    from devstack.maven import fetch_jar

    own = _own_jars()
    hadoop = [found[1] for path in own if (found := re.fullmatch(r"hadoop-client-api-(.*)\.jar", path.name))]
    if not hadoop or any(path.name.startswith("hadoop-aws-") for path in own):
        return []
    parts = [f"software.amazon.awssdk:{part}:{SDK}" for part in _PARTS]
    others = ("software.amazon.eventstream:eventstream:1.0.1", "org.reactivestreams:reactive-streams:1.0.4")
    return [fetch_jar(name) for name in (f"org.apache.hadoop:hadoop-aws:{hadoop[0]}", *parts, *others)]


def _own_jars() -> list[Path]:
    import pyspark

    # Under spark-submit the package is a zip file, and this variable is set.
    home = os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent
    return sorted((Path(home) / "jars").glob("*.jar"))
