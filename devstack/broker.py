"""A real single-node Kafka broker in a folder, without Docker: its jars come from Maven Central through jgo.

with LocalBroker(home / "kafka") as broker:
    KafkaProducer(bootstrap_servers=broker.bootstrap)
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

from devstack.maven import MavenError, fetch_jars
from devstack.ports import free_port, in_use
from devstack.processes import start_child

KAFKA_VERSION = "4.3.1"
# The clients are named apart, or jgo takes an older version of them that a dependency of a dependency asks for.
_JARS = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
    f"+org.apache.kafka:kafka-clients:{KAFKA_VERSION}"
    "+org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"
)
_JAVA = ("-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
_NEEDED_BYTES = 200 << 20  # the smallest log segment plus its indexes are allocated ahead, for every partition

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
# One node holds every internal topic.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# The default fences a killed broker for 9 s: a restart would take 14 s in place of 5.
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
group.initial.rebalance.delay.ms=0
# A killed worker's open transaction holds back every reader of committed records until it is timed out.
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
# A replay writes records with old timestamps, which any retention by age would delete as they arrive.
log.retention.ms=-1
log.segment.bytes=67108864
log.index.size.max.bytes=1048576
num.network.threads=2
num.io.threads=4
"""

_LOG4J = """\
appender.file.type=File
appender.file.name=file
appender.file.fileName={log}
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d %p %c{{1}}: %m%n
rootLogger.level=WARN
rootLogger.appenderRef.file.ref=file
"""


class BrokerError(RuntimeError):
    """The local broker cannot run. The message is one sentence that says why and what to do."""


def java() -> str:
    """The path of a Java runtime, version 17 or later.

    Raises:
        BrokerError: there is none.
    """
    found = shutil.which("java")
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin" / "java").is_file():
        found = str(Path(home) / "bin" / "java")
    advice = "install a Java 17 runtime, e.g. apt-get install openjdk-17-jre-headless"
    if not found:
        raise BrokerError(f"Kafka and Spark need Java and there is none on the PATH: {advice}")
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    parts = said.split('"')
    major = parts[1].split(".")[0] if len(parts) > 1 else ""
    if not major.isdigit() or int(major) < 17:
        raise BrokerError(
            f"Kafka and Spark need Java 17 or later and {found} is version {major or 'unknown'}: {advice}"
        )
    return found


class LocalBroker:
    """One Kafka node whose data, settings and log live in ``folder``. Its ports are remembered there, so that clients
    find it again after a restart.

    Args:
        folder: The broker's folder; made if need be.
        port: The port to listen on; by default the remembered one, or a free one at first.
        timeout_s: How long a start may take.
        properties: Kafka's settings that are added to ours, or take their place.
    """

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        timeout_s: float = 180,
        properties: Callable[[dict[str, int]], dict[str, str]] = lambda ports: {},
    ):
        self.folder = Path(folder).absolute()
        self.timeout_s = timeout_s
        self.process: subprocess.Popen | None = None
        self._wanted_port = port
        self._ports: dict[str, int] = {}
        self._properties = properties

    @property
    def bootstrap(self) -> str:
        """``host:port`` for clients."""
        return f"127.0.0.1:{self._ports['port']}"

    @property
    def pid(self) -> int | None:
        """The process id, or None if the broker does not run."""
        return self.process.pid if self.process and self.process.poll() is None else None

    @property
    def log(self) -> Path:
        return self.folder / "broker.log"

    def __enter__(self) -> "LocalBroker":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> "LocalBroker":
        """Start and wait until clients are answered; a broker of ours that still runs in the folder is an error.

        Raises:
            BrokerError: Java or the jars are missing, a port is taken, the folder cannot be written, or Kafka gave up.
        """
        if self.pid:
            return self
        runtime = java()
        self._prepare()
        try:
            self._run(runtime)
        except BaseException:  # Ctrl-C too: nothing may stay behind
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Ask the broker to end; kill it if it does not within ten seconds."""
        self._end(signal.SIGTERM, 10)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self._end(signal.SIGKILL, 10)

    def _end(self, sign: int, timeout_s: float) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(sign)
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _prepare(self) -> None:
        ports = self.folder / "ports.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if ports.is_file():
                self._ports = json.loads(ports.read_text())
            else:
                self._ports = {"port": free_port(), "controller": free_port()}
            if self._wanted_port:
                self._ports["port"] = self._wanted_port
            ports.write_text(json.dumps(self._ports))
            config = _PROPERTIES.format(data=self.folder / "data", **self._ports)
            # Of a setting that is there twice, Kafka takes the later one.
            config += "".join(f"{name}={value}\n" for name, value in self._properties(self._ports).items())
            (self.folder / "server.properties").write_text(config)
            (self.folder / "log4j2.properties").write_text(_LOG4J.format(log=self.log))
        except OSError as error:
            raise BrokerError(f"the broker cannot write to its folder {self.folder}: {error.strerror}") from error
        free = shutil.disk_usage(self.folder).free
        if free < _NEEDED_BYTES:
            raise BrokerError(
                f"the broker needs {_NEEDED_BYTES >> 20} MB free for {self.folder} and there are {free >> 20} MB: "
                "free some space or choose another home folder"
            )
        for name, port in self._ports.items():
            if in_use(port):
                raise BrokerError(
                    f"port {port}, the broker's {name}, is in use by another process: end that one, "
                    f"or delete {ports} to choose a new port"
                )

    def _run(self, runtime: str) -> None:
        try:
            classpath = os.pathsep.join(str(jar) for jar in fetch_jars(_JARS))  # the first time 44 MB
        except MavenError as error:
            raise BrokerError(str(error)) from error
        config = self.folder / "server.properties"
        base = [runtime, *_JAVA, f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}", "-cp", classpath]
        if not (self.folder / "data" / "meta.properties").is_file():
            cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
            command = [*base, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(config)]
            with start_child(command, subprocess.PIPE) as formatting:
                said = formatting.communicate()[0].decode(errors="replace")
            if formatting.returncode:
                raise BrokerError(f"Kafka could not format {self.folder}: {_reason(said)}")
        with (self.folder / "broker.out").open("wb") as out:
            self.process = start_child([*base, "kafka.Kafka", str(config)], out)
        (self.folder / "pid").write_text(str(self.process.pid))
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + self.timeout_s
        while time.monotonic() < deadline:
            if self.pid is None:
                text = self.log.read_text(errors="replace") if self.log.is_file() else ""
                text += (self.folder / "broker.out").read_text(errors="replace")
                if "No space left on device" in text:
                    raise BrokerError(
                        f"the disk of {self.folder} is full: free some space or choose another home folder"
                    )
                if "Failed to acquire lock" in text:
                    raise BrokerError(f"another broker runs on {self.folder}: end it first")
                raise BrokerError(f"Kafka ended as it started: {_reason(text)} (see {self.log})")
            if _answers(self.bootstrap):
                return
            time.sleep(0.1)
        raise BrokerError(f"Kafka did not answer within {self.timeout_s:.0f} s; see {self.log}")


def _answers(bootstrap: str) -> bool:
    """Whether the node serves requests of clients (its port opens a little earlier)."""
    host, port = bootstrap.split(":")
    try:
        socket.create_connection((host, int(port)), 0.5).close()
    except OSError:
        return False
    from kafka.admin import KafkaAdminClient
    from kafka.errors import KafkaError

    try:
        admin = KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=2_000, request_timeout_ms=3_000)
    except KafkaError:
        return False
    try:
        return bool(admin.describe_cluster()["brokers"])
    except KafkaError:
        return False
    finally:
        admin.close()


def _reason(log: str) -> str:
    """The innermost cause that a JVM's log ends with, or its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("at ", "... "))]
    causes = [line.removeprefix("Caused by: ") for line in told if line.startswith("Caused by: ")]
    return (causes or told or ["it said nothing"])[-1][:300]
