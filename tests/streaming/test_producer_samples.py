"""The producers of docs/integrate.md, compiled and run: each record lands where this project looks for it."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import TopicPartition

from model.partitioner import partitions_of
from model.settings.updater import KafkaConnection
from streaming.kafka.clients import free_consumer
from tests.conftest import fresh_topics

PAGE = (Path(__file__).parents[2] / "docs" / "integrate.md").read_text()
VERSIONS = {
    "github.com/twmb/franz-go": "v1.22.3",
    "github.com/segmentio/kafka-go": "v0.4.51",
    "github.com/confluentinc/confluent-kafka-go/v2": "v2.11.1",
}


def table() -> dict[str, int]:
    """The page's keys and the partition of each, of four."""
    keys, partitions = re.search(r"^\| key \|(.*)\|\n.*\n\| partition \|(.*)\|$", PAGE, re.M).groups()
    return dict(zip(re.findall(r"`(.+?)`", keys), map(int, re.findall(r"\d+", partitions)), strict=True))


def sample(language: str, kafka: KafkaConnection) -> str:
    """The page's code in a language, for a broker and a topic of the test's own."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    assert '"127.0.0.1:9092"' in code and '"clicks"' in code
    return code.replace("127.0.0.1:9092", kafka.bootstrap).replace('"clicks"', f'"{kafka.topics.clicks}"')


@pytest.fixture
def landed(broker) -> tuple[KafkaConnection, Callable[[], dict[str, tuple[int, int]]]]:
    """Topics of four partitions, and a look at which key's record lies where."""
    kafka = fresh_topics(broker, 4)

    def read() -> dict[str, tuple[int, int]]:
        consumer = free_consumer(kafka)
        partitions = [TopicPartition(kafka.topics.clicks, partition) for partition in range(4)]
        consumer.assign(partitions)
        ends, found = consumer.end_offsets(partitions), {}
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for records in consumer.poll(500).values():
                found |= {record.key.decode(): (record.partition, record.offset) for record in records}
        consumer.close()
        return found

    return kafka, read


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expected(keys: list[str]) -> dict[str, int]:
    return dict(zip(keys, partitions_of(keys, 4).tolist(), strict=True))


def test_the_table_of_the_page_is_the_partitioners():
    assert table() == expected(list(table()))


@pytest.mark.slow
def test_the_java_producer_compiles_and_its_records_land_where_the_stream_looks_for_them(landed, tmp_path: Path):
    if not (shutil.which("javac") and shutil.which("java")):
        pytest.skip("there is no javac on the PATH: apt-get install openjdk-17-jdk-headless")
    from devstack.broker import KAFKA_VERSION
    from devstack.maven import fetch_jars

    kafka, read = landed
    code = sample("java", kafka)
    told = 'String token = place.partition() + ":" + place.offset();\n'
    assert told in code
    code = code.replace(told, told + '    System.out.println(queryId + "\\t" + token);\n')
    (tmp_path / "Clicks.java").write_text(f"""
import java.util.Properties;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.serialization.StringSerializer;

public class Clicks {{
    public static void main(String[] arguments) throws Exception {{
        for (String queryId : java.nio.file.Files.readAllLines(java.nio.file.Path.of("keys"))) {{
            String json = "{{}}";
{code}
        }}
    }}
}}
""")
    keys = [*table(), *(f"q-{k}" for k in range(20))]
    (tmp_path / "keys").write_text("\n".join(keys))
    jars = os.pathsep.join(str(jar) for jar in fetch_jars(f"org.apache.kafka:kafka-clients:{KAFKA_VERSION}"))
    run("javac", "-Xlint:all", "-Werror", "-encoding", "UTF-8", "-cp", jars, "Clicks.java", cwd=tmp_path)
    path = f"{jars}{os.pathsep}."
    output = run("java", "-Dstdout.encoding=UTF-8", "-cp", path, "Clicks", cwd=tmp_path)
    told_of = dict(line.split("\t") for line in output.splitlines() if "\t" in line)
    assert told_of == {key: f"{partition}:{offset}" for key, (partition, offset) in read().items()}
    assert {key: partition for key, (partition, _) in read().items()} == expected(keys)


FRANZ = """
package main

import ("context"; "fmt"; "github.com/twmb/franz-go/pkg/kgo")

func franz(ctx context.Context, queryID string, body []byte) error {
CODE
    _ = token
    client.Close()
    return err
}
"""
SEGMENTIO = """
package main

import ("context"; "github.com/segmentio/kafka-go")

func segmentio(ctx context.Context, queryID string, body []byte) error {
CODE
    defer writer.Close()
    return writer.WriteMessages(ctx, kafka.Message{Key: []byte(queryID), Value: body})
}
"""
CONFLUENT = """
package main

import ("context"; "github.com/confluentinc/confluent-kafka-go/v2/kafka")

func confluent(ctx context.Context, queryID string, body []byte) error {
CODE
    if err != nil { return err }
    topic := "TOPIC"
    anywhere := kafka.TopicPartition{Topic: &topic, Partition: kafka.PartitionAny}
    done := make(chan kafka.Event, 1)
    if err = producer.Produce(&kafka.Message{TopicPartition: anywhere, Key: []byte(queryID), Value: body}, done)
        err != nil { return err }
    written := (<-done).(*kafka.Message)
    producer.Close()
    return written.TopicPartition.Error
}
"""
MAIN = """
package main

import ("context"; "encoding/json"; "os")

func main() {
    var keys []string
    if err := json.Unmarshal([]byte(os.Args[1]), &keys); err != nil { panic(err) }
    producers := []func(context.Context, string, []byte) error{franz, segmentio, confluent}
    for at, key := range keys {
        if err := producers[at % 3](context.Background(), key, []byte("{}")); err != nil { panic(err) }
    }
}
"""


@pytest.mark.slow
def test_the_go_producers_compile_and_their_records_land_where_the_stream_looks_for_them(landed, tmp_path: Path):
    if not (shutil.which("go") and shutil.which("gcc")):
        pytest.skip("there is no go, or no gcc, on the PATH")
    kafka, read = landed
    parts = re.split(r"^(?=// )", sample("go", kafka), flags=re.M)
    named = {name: next(part for part in parts if part.startswith(f"// {name}")) for name in
             ("franz-go", "segmentio", "confluent")}  # fmt: skip
    assert len(parts) == 4 and not parts[0].strip()
    for name, frame in (("franz-go", FRANZ), ("segmentio", SEGMENTIO), ("confluent", CONFLUENT)):
        source = frame.replace("CODE", named[name]).replace("TOPIC", kafka.topics.clicks)
        (tmp_path / f"{name}.go").write_text(source)
    (tmp_path / "main.go").write_text(MAIN)
    required = "\n".join(f"require {module} {version}" for module, version in VERSIONS.items())
    (tmp_path / "go.mod").write_text(f"module clicks\n\ngo 1.25\n\n{required}\n")
    fetched = subprocess.run(["go", "mod", "tidy"], cwd=tmp_path, capture_output=True, text=True, check=False)
    if fetched.returncode:
        pytest.skip(f"Go's modules cannot be fetched: {fetched.stderr[-300:]}")
    # The last by librdkafka, in C.
    run("go", "build", "-o", "clicks", ".", cwd=tmp_path, CGO_ENABLED="1")
    keys = [f"{key}{tail}" for tail in ("", "-b", "-c") for key in table()]
    run("./clicks", json.dumps(keys), cwd=tmp_path)
    assert {key: partition for key, (partition, _) in read().items()} == expected(keys)
