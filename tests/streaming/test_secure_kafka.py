"""The same settings point the loop at a cluster that speaks TLS and asks for a password."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from kafka.errors import KafkaError

from cli.broker import LocalBroker
from streaming.clients import create_topics, quiet_kafka
from streaming.config import UpdaterConfig
from streaming.topics import ITEM_VECTORS, QUERY_VECTORS
from tests.conftest import PARTITIONS
from tests.streaming.loop import eventually, folded, produce, running, some_clicks, truth
from tests.tiny import tiny_bundle, tiny_store

PASSWORD = "changeit"


@pytest.fixture
def secure(tmp_path):
    """A broker with a second listener, SASL_SSL; its settings for a client; its plain ``host:port``."""
    keytool = shutil.which("keytool")
    if not keytool:
        pytest.skip("making a certificate needs keytool, which comes with Java")
    store, certificate = tmp_path / "broker.p12", tmp_path / "ca.pem"
    common = ["-alias", "broker", "-keystore", str(store), "-storepass", PASSWORD]
    for command in (
        ["-genkeypair", "-keyalg", "RSA", "-storetype", "PKCS12", "-dname", "CN=broker", "-ext", "SAN=ip:127.0.0.1"],
        ["-exportcert", "-rfc", "-file", str(certificate)],
    ):
        subprocess.run([keytool, command[0], *common, *command[1:]], check=True, capture_output=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with LocalBroker(tmp_path / "kafka", properties=lambda ports: listeners(ports, port, store)) as broker:
        config = UpdaterConfig(
            bootstrap=f"127.0.0.1:{port}", security_protocol="SASL_SSL", ssl_cafile=str(certificate),
            sasl_mechanism="PLAIN", sasl_plain_username="dat", sasl_plain_password="secret",
        )  # fmt: skip
        yield config, broker.bootstrap


def listeners(ports: dict[str, int], secure: int, store: Path) -> dict[str, str]:
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    return {
        "listeners": "PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}".format(**ports)
        + f",SECURE://127.0.0.1:{secure}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{ports['port']},SECURE://127.0.0.1:{secure}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL",
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(store),
        "ssl.keystore.password": PASSWORD,
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.secure.plain.sasl.jaas.config": f'{login} user_dat="secret";',
    }


def test_clicks_go_through_a_cluster_with_tls_and_a_password(secure, tmp_path):
    config, plain = secure
    quiet_kafka()
    bundle, store, clicks = tiny_bundle("secure"), tiny_store(tmp_path / "home", queries=9, items=12), some_clicks(40)
    create_topics(config, PARTITIONS)
    with running(bundle, store, config):
        produce(config, clicks)
        for topic, count in zip((QUERY_VECTORS, ITEM_VECTORS), truth(clicks), strict=True):
            eventually(lambda topic=topic, count=count: folded(plain, topic, bundle) == count, "folded", 60)
    with pytest.raises(KafkaError):
        create_topics(config.model_copy(update={"sasl_plain_password": "wrong"}))
