"""The one settings object: defaults, then ``dat.toml``, then files of secrets, then ``DAT_*`` in the environment, then
the command line."""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError as SourceError

from feature_repo.card import CardError, DatasetCard, load_card
from feature_repo.home_url import as_url, is_url, on_this_machine, own_folder
from model.settings.model import DATConfig
from model.settings.night import NightConfig
from model.settings.serving import ServingConfig
from model.settings.updater import UpdaterConfig

if TYPE_CHECKING:
    from feature_repo.place import Place

DEFAULT_NEGATIVES = 4
SCHEMES = ("s3", "s3a", "gs", "abfs", "abfss", "hdfs", "file")
"""Of the URLs that :class:`feature_repo.object_store.ObjectStore` takes."""
SECRETS_DIR = "DAT_SECRETS_DIR"
"""The environment's name for a folder of files that each hold one setting, such as ``updater__sasl_plain_password``:
how an orchestrator hands over secrets."""


class SettingsError(ValueError):
    """A setting is not valid. The message names it."""


def _here(given: Any) -> Any:
    try:
        return on_this_machine(given)
    except ValueError as error:
        raise PydanticCustomError("url", "{why}", {"why": str(error)}) from error


class Settings(BaseSettings):
    """Everything that can be set. In ``dat.toml`` the parts are tables; in the environment they are joined by ``__``,
    as in ``DAT_NIGHT__NEGATIVES=8``."""

    model_config = SettingsConfigDict(
        env_prefix="DAT_", env_nested_delimiter="__", toml_file="dat.toml", extra="forbid", frozen=True
    )

    home: Path = Path(".dat")
    """Where the system keeps everything: click lake, offline features, bundles, and the local stack's data.

    May be a URL (``s3://bucket/dat``, ``s3a://…``, ``gs://…``, ``abfs://…``, ``hdfs://…``). What machines share then
    lies there, and this becomes the machine's own folder, below ``scratch``."""
    home_url: str | None = None
    """The URL, if ``home`` is given as one; not to be set."""
    scratch: Path | None = None
    """The folder for what is a machine's own of homes by URL: locks, checkpoints, Spark's scratch, copies of bundles.
    None: the user's cache (``~/.cache/dat``)."""
    data: Path = Path("../shared/data")
    """The folder that the folders named in dataset cards are in."""
    dataset: str = "movielens-100k"
    """The dataset card: its name, or the path of a TOML file."""
    bundles: str | None = None
    """Where bundles are published, as a URL: ``s3://bucket/prefix``, ``gs://…``, ``abfs://…``, ``hdfs://…``, ``file://…``.
    Night, updater and service then share no disk. Without it they are in the home."""
    redis: str | None = None
    """``host:port`` of the Redis that answers online, ``cluster:host:port,…`` of a cluster,
    ``sentinel:NAME@host:port,…`` of the sentinels that know who is master of that name; without it SQLite does."""
    log_format: Literal["text", "json"] = "text"
    """``json``: a line an event, one object each, for a log store."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Of the project's own events; libraries speak from WARNING on."""
    tracing: bool = False
    """Send OpenTelemetry's traces of service and updater, over OTLP/HTTP, to where ``OTEL_EXPORTER_OTLP_ENDPOINT`` and
    its like say. It takes the extra ``otel``."""
    night: NightConfig = NightConfig()
    updater: UpdaterConfig = UpdaterConfig(bootstrap="127.0.0.1:9092")
    """Also where Kafka is: ``DAT_UPDATER__BOOTSTRAP``, and the TLS and SASL settings beside it."""
    serving: ServingConfig = ServingConfig()

    @model_validator(mode="before")
    @classmethod
    def _a_home_by_url(cls, given: dict[str, Any]) -> dict[str, Any]:
        home = str(given.get("home", ""))
        if given.get("home_url") or not is_url(home):
            return given
        url, scratch = cls._a_store(as_url(home)) or "", given.get("scratch")
        if "?" in url:
            raise PydanticCustomError("url", "a home's URL has no options: another endpoint is AWS_ENDPOINT_URL")
        own = own_folder(url, Path(scratch) if scratch else None)
        return given | {"bundles": given.get("bundles") or f"{url}/bundles", "home": own, "home_url": url}

    @property
    def shared(self) -> "Place":
        """Where lake, features, training sets and records are."""
        from feature_repo.place import shared_place  # a verb that needs it not need not import Arrow

        return shared_place(self.home_url or self.home)

    @field_validator("home", "data", "scratch", mode="before")
    @classmethod
    def _a_folder(cls, given: Any) -> Any:
        return _here(given)

    @field_validator("redis")
    @classmethod
    def _an_address(cls, given: str | None) -> str | None:
        if given and "://" in given.split(",")[0]:
            raise PydanticCustomError("redis", "is written without a scheme: host:port[,password=…]")
        return given or None

    @field_validator("bundles")
    @classmethod
    def _a_store(cls, given: str | None) -> str | None:
        url = urlsplit(given or "")
        named = url.netloc or (url.path if url.scheme in ("file", "hdfs") else "")  # elsewhere a bucket comes first
        if given and (url.scheme not in SCHEMES or not named):
            known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise PydanticCustomError("url", "{url} is no URL of an object store: {known}, and a bucket", {
                "url": given, "known": f"it begins with one of {known}"
            })  # fmt: skip
        if "@" in url.netloc and url.scheme == "s3":
            raise PydanticCustomError("url", "a key has no place in a URL: AWS_ACCESS_KEY_ID and its like have it")
        return as_url(given) if given and url.scheme == "s3a" else (given or "").rstrip("/") or None

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:  # fmt: skip
        sources = (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))
        folder = os.environ.get(SECRETS_DIR)
        if not folder:
            return sources
        secrets = NestedSecretsSettingsSource(
            file_secret_settings, secrets_dir=folder, secrets_dir_missing="error", secrets_prefix="",
            secrets_nested_delimiter="__", secrets_case_sensitive=False,
        )  # fmt: skip
        return (*sources[:2], secrets, sources[2])

    @property
    def card(self) -> DatasetCard:
        return load_card(self.dataset)

    def model_settings(self, card: DatasetCard) -> dict[str, Any]:
        """The model's settings that are not defaults: the card's, overridden by those that were given for the night."""
        return merged(card.training.model, self.night.model.model_dump(exclude_unset=True))

    def night_of(self, card: DatasetCard) -> NightConfig:
        """The night's settings with the card's model and negatives where none were given: what ``dat nightly`` and
        ``dat evaluate`` train with.

        Raises:
            CardError: the card names a setting that does not exist, or a value that it cannot have.
        """
        try:
            model = DATConfig.model_validate(self.model_settings(card))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in ("training", "model", *first["loc"]))
            raise CardError(f"the card of '{card.name}': {where}: {first['msg']}") from None
        negatives = self.night.negatives or card.training.negatives or DEFAULT_NEGATIVES
        return self.night.model_copy(update={"model": model, "negatives": negatives})


def merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings with some changed; of a part, too, only what is named."""
    both = settings | changes
    for name in settings.keys() & changes.keys():
        if isinstance(settings[name], dict) and isinstance(changes[name], dict):
            both[name] = settings[name] | changes[name]
    return both


def load_settings(**given: Any) -> Settings:
    """Settings with those options of the command line that were given (not None); ``bootstrap`` is the updater's.

    Raises:
        SettingsError: a value is not valid; the message says which.
    """
    given = {name: value for name, value in given.items() if value is not None}
    if bootstrap := given.pop("bootstrap", None):
        given["updater"] = {"bootstrap": bootstrap}
    _check_environment()
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "home"
        told = _no_such(first["loc"]) if first["type"] == "extra_forbidden" else first["msg"]
        raise SettingsError(f"the setting {where}: {told}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"dat.toml, or a file in {SECRETS_DIR}, is not UTF-8: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"dat.toml is not TOML: {error}") from None
    except SourceError as error:
        if isinstance(error.__cause__, ValueError):  # of JSON
            raise SettingsError(f'{error}: of several values it is JSON, such as ["one", "two"]') from None
        raise SettingsError(f"{SECRETS_DIR}: {error}") from None


def _no_such(loc: tuple[str | int, ...]) -> str:
    """What to say of a setting that there is not."""
    part: Any = Settings
    for name in loc[:-1]:
        field = getattr(part, "model_fields", {}).get(name)
        part = field.annotation if field else None
    known = part.model_fields if isinstance(part, type) and issubclass(part, BaseModel) else {}
    like = difflib.get_close_matches(str(loc[-1]), known, 3)
    return "there is no such setting" + (f"; there is {', '.join(like)}" if like else "")


def _check_environment() -> None:
    """pydantic-settings passes over a name of the environment whose first part it does not know. Not all of them are
    ours, Kubernetes' of services are none: refused are those that are meant to be.

    Raises:
        SettingsError: a name with ``__`` whose first part is none of the settings, one with ``_`` in the place of
            ``__``, one that has a setting's letters in another order, or one like that of the folder of secrets.
    """
    ours = {f"DAT_{name}".upper() for name in Settings.model_fields}
    by_one = {name.replace("__", "_"): name for name in _names(Settings, "DAT_")}
    by_letters = {"".join(sorted(name)): name for name in ours}
    for given in sorted(os.environ):
        name = given.upper()
        first, _, rest = name.partition("__")
        if not name.startswith("DAT_") or name == SECRETS_DIR or first in ours or _OF_A_SERVICE.search(name):
            continue
        secrets = SECRETS_DIR if name.startswith("DAT_SECRET") else None
        like = by_letters.get("".join(sorted(first)))
        meant = secrets or by_one.get(name) or (like and name.replace(first, like, 1))
        if meant or rest:
            raise SettingsError(f"{given} in the environment names no setting" + (f": {meant} does" if meant else ""))


_OF_A_SERVICE = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)$")
"""What Kubernetes sets in each pod, of each service of its namespace."""


def _names(part: type[BaseModel], before: str) -> Iterator[str]:
    """The names of all settings in the environment."""
    for name, field in part.model_fields.items():
        yield f"{before}{name}".upper()
        if isinstance(kind := field.annotation, type) and issubclass(kind, BaseModel):
            yield from _names(kind, f"{before}{name}__")
