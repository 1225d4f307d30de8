"""How the long-running verbs log: a line an event, as text or as JSON; and what Kafka's client said last."""

import json
import logging
import time
import warnings
from collections import deque

from model.settings.settings import Settings

_TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_OURS = ("cli", "feature_repo", "model", "serving", "spark_jobs", "streaming", "training")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One object a line: time (UTC), level, logger, message; what a call gave as ``extra``; an error's traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class _LastWords(logging.Handler):
    """Keeps what kafka-python logs as an error: it hides causes, such as a wrong password, behind a timeout."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: deque[str] = deque(maxlen=8)

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


_KAFKA = _LastWords()
_CAUSES = (  # in the words of kafka-python → in ours; the most telling first
    (("uthentication", "SaslAuth", "SASL"), "the broker refuses the user or the password"),
    (("CERTIFICATE", "SSL", "certificate"), "TLS fails: see ssl_cafile, ssl_certfile and the broker's name"),
    (("uthorization",), "the user lacks a right"),
    (("ECONNREFUSED", "Connection refused", "111"), "nothing listens there"),
    (("DNS", "getaddrinfo", "Name or service"), "the name is not known"),
)


def set_up(settings: Settings) -> None:
    """Log to stderr by these settings; to be called once, by the verb."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if settings.log_format == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in _OURS:
        logging.getLogger(name).setLevel(settings.log_level)


def quiet() -> None:
    """Silence what libraries say about themselves; their errors still come through."""
    # Not by a filter: Feast, whenever it is imported, puts filters of its own in front.
    warnings.showwarning = lambda *_, **__: None
    listen_to_kafka()
    for name in ("feast", "feast.repo_config", "py4j", "jgo"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Spark's bridge logs each error that it raises, a Ctrl-C, too, with its traceback.
    logging.getLogger().addFilter(lambda record: "/py4j/" not in record.pathname)


def listen_to_kafka() -> None:
    """Keep kafka-python's warnings to tell causes by; none of them is printed, since it repeats them without end."""
    logger = logging.getLogger("kafka")
    logger.propagate = False
    if _KAFKA not in logger.handlers:
        logger.addHandler(_KAFKA)


def kafka_cause(error: BaseException) -> str:
    """Why Kafka does not answer, in words, as far as its client has told."""
    said = " ".join([*_KAFKA.said, repr(error), repr(error.__cause__)])
    for words, cause in _CAUSES:
        if any(word in said for word in words):
            return cause
    return type(error).__name__
