"""The same settings point the loop at a cluster that speaks TLS, asks who it is, and grants no right too many."""

import json
import shutil
import subprocess
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
    UserScramCredentialUpsertion,
)
from kafka.errors import KafkaError

from feature_repo.event_rule import EventRule
from model.settings.updater import KafkaConnection, UpdaterConfig
from serving.ab.impressions import read_clicks
from streaming.kafka.clients import quiet_kafka
from streaming.kafka.topics import TopicsMissing, create_topics
from tests.conftest import PARTITIONS
from tests.streaming.loop import eventually, folded, produce, running, some_clicks, truth
from tests.tiny import tiny_bundle, tiny_store

PASSWORD = "changeit"
_HERE = "ip:127.0.0.1"
_LOGIN = "org.apache.kafka.common.security"


def token() -> str:
    """An unsigned token, as the broker's default validator takes it."""
    now = int(time.time())
    parts = {"alg": "none"}, {"sub": "dat", "iat": now, "exp": now + 3_600}
    return ".".join([*(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts), ""])


@dataclass
class Secure:
    """A broker with secure listeners: a client's settings for each, and the plain one of the administrator."""

    clients: dict[str, UpdaterConfig]
    admin: KafkaConnection


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    keytool = shutil.which("keytool")
    if not keytool:
        pytest.skip("making a certificate needs keytool, which comes with Java")
    folder = tmp_path_factory.mktemp("secure")
    for name in ("broker", "dat"):
        common = ["-alias", name, "-keystore", str(folder / f"{name}.p12"), "-storepass", PASSWORD]
        for command in (
            ["-genkeypair", "-keyalg", "RSA", "-storetype", "PKCS12", "-dname", f"CN={name}", "-ext", f"SAN={_HERE}"],
            ["-exportcert", "-rfc", "-file", str(folder / f"{name}.pem")],
        ):  # fmt: skip
            subprocess.run([keytool, command[0], *common, *command[1:]], check=True, capture_output=True)
    key, _, _ = pkcs12.load_key_and_certificates((folder / "dat.p12").read_bytes(), PASSWORD.encode())
    for file, protection in (("dat.key", BestAvailableEncryption(b"key-secret")), ("plain.key", NoEncryption())):
        (folder / file).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
    from devstack.broker import LocalBroker
    from devstack.ports import free_port

    sasl, mtls = free_port(), free_port()

    with LocalBroker(folder / "kafka", properties=lambda ports: listeners(ports, sasl, mtls, folder)) as broker:
        admin = KafkaConnection(bootstrap=broker.bootstrap)
        tls = {
            "bootstrap": f"127.0.0.1:{sasl}",
            "security_protocol": "SASL_SSL",
            "ssl_cafile": str(folder / "broker.pem"),
        }
        user = {"sasl_plain_username": "dat", "sasl_plain_password": "secret"}
        clients = {
            "PLAIN": tls | user | {"sasl_mechanism": "PLAIN"},
            "SCRAM": tls | user | {"sasl_mechanism": "SCRAM-SHA-512"},
            "OAUTHBEARER": tls | {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token": f"{__name__}:token"},
            "mTLS": {
                "bootstrap": f"127.0.0.1:{mtls}", "security_protocol": "SSL", "ssl_cafile": str(folder / "broker.pem"),
                "ssl_certfile": str(folder / "dat.pem"), "ssl_keyfile": str(folder / "dat.key"),
                "ssl_password": "key-secret",
            },
        }  # fmt: skip
        client = KafkaAdminClient(**admin.client)
        client.alter_user_scram_credentials([UserScramCredentialUpsertion("dat", "SCRAM-SHA-512", "secret")])
        client.close()
        yield Secure({name: UpdaterConfig(**settings) for name, settings in clients.items()}, admin)


def listeners(ports: dict[str, int], sasl: int, mtls: int, folder: Path) -> dict[str, str]:
    here = {"PLAINTEXT": ports["port"], "SASL": sasl, "MTLS": mtls}
    urls = ",".join(f"{name}://127.0.0.1:{port}" for name, port in here.items())
    return {
        "listeners": f"{urls},CONTROLLER://127.0.0.1:{ports['controller']}",
        "advertised.listeners": urls,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL,MTLS:SSL",
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(folder / "broker.p12"),
        "ssl.keystore.password": PASSWORD,
        "listener.name.mtls.ssl.client.auth": "required",
        "listener.name.mtls.ssl.truststore.type": "PEM",
        "listener.name.mtls.ssl.truststore.location": str(folder / "dat.pem"),
        "ssl.principal.mapping.rules": "RULE:^CN=(.*)$/$1/",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512,OAUTHBEARER",
        "listener.name.sasl.plain.sasl.jaas.config": f'{_LOGIN}.plain.PlainLoginModule required user_dat="secret";',
        "listener.name.sasl.scram-sha-512.sasl.jaas.config": f"{_LOGIN}.scram.ScramLoginModule required;",
        "listener.name.sasl.oauthbearer.sasl.jaas.config": f"{_LOGIN}.oauthbearer.OAuthBearerLoginModule required "
        'unsecuredLoginStringClaim_sub="broker";',
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }


def grant(admin: KafkaConnection, *rights: tuple[ResourceType, str, ACLOperation]) -> None:
    """Rights of the user dat on names that begin so."""
    client = KafkaAdminClient(**admin.client)
    client.create_acls(
        [
            ACL("User:dat", "*", operation, ACLPermissionType.ALLOW,
                ResourcePattern(kind, name, ACLResourcePatternType.PREFIXED))
            for kind, name, operation in rights
        ]
    )  # fmt: skip
    client.close()


def exist(config: KafkaConnection) -> bool:
    """Whether the topics exist, as far as the user is told."""
    try:
        create_topics(config)
    except TopicsMissing:
        return False
    return True


TOPIC, GROUP, TRANSACTION = ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID
READ, WRITE, DESCRIBE = ACLOperation.READ, ACLOperation.WRITE, ACLOperation.DESCRIBE


@pytest.mark.parametrize("how", ["PLAIN", "SCRAM", "OAUTHBEARER", "mTLS"])
def test_clicks_are_written_and_read_as_each_kind_of_user(secure, how):
    quiet_kafka()
    prefix = f"{how}."
    create_topics(secure.admin.model_copy(update={"prefix": prefix}), PARTITIONS)
    grant(secure.admin, (TOPIC, prefix, READ), (TOPIC, prefix, WRITE))
    config, clicks = secure.clients[how].model_copy(update={"prefix": prefix}), some_clicks(20)
    eventually(lambda: exist(config), "the rights hold")
    produce(config, clicks)
    assert sorted(read_clicks(config, 0, EventRule())["item_id"].to_pylist()) == sorted(
        click.item_id for click in clicks
    )


def test_a_wrong_password_and_a_wrong_key_are_refused(secure):
    for how, wrong in (
        ("PLAIN", {"sasl_plain_password": "wrong"}),
        ("mTLS", {"ssl_certfile": None, "ssl_keyfile": None}),
    ):
        with pytest.raises(KafkaError):
            create_topics(secure.clients[how].model_copy(update={**wrong, "connect_timeout_ms": 2_000}))


def test_the_least_rights_suffice_for_the_loop_and_missing_topics_are_named(secure, tmp_path):
    quiet_kafka()
    config = secure.clients["PLAIN"].model_copy(update={"prefix": "least."})
    with pytest.raises(TopicsMissing, match="least.clicks, .*do not exist and this user may not create them"):
        create_topics(config)
    owner = secure.admin.model_copy(update={"prefix": "least."})
    create_topics(owner, PARTITIONS)
    topics = config.topics
    grant(
        secure.admin,
        (TOPIC, topics.clicks, READ), (TOPIC, topics.dead_letters, WRITE), (TOPIC, topics.dismissed, WRITE),
        (TOPIC, topics.impressions, DESCRIBE), (TOPIC, topics.items, DESCRIBE), (TOPIC, topics.forgotten, READ),
        *((TOPIC, name, right) for name in (topics.item_signals, topics.query_vectors, topics.item_vectors)
          for right in (READ, WRITE)),
        (GROUP, "least.dat-", READ), (TRANSACTION, "least.dat-", WRITE),
    )  # fmt: skip
    eventually(lambda: exist(config), "the rights hold")
    bundle, store, clicks = tiny_bundle("least"), tiny_store(tmp_path, queries=9, items=12), some_clicks(40)
    with running(bundle, store, config):
        produce(owner, clicks)
        for side, count in zip(("query", "item"), truth(clicks), strict=True):
            eventually(lambda side=side, count=count: folded(owner, side, bundle) == count, "folded", 60)
