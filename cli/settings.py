"""The one settings object: defaults, then ``dat.toml``, then ``DAT_*`` in the environment, then the command line."""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from feature_repo.card import CardError, DatasetCard, load_card
from serving.config import ServingConfig
from spark_jobs.config import NightConfig
from streaming.config import UpdaterConfig


class SettingsError(ValueError):
    """A setting is not valid. The message names it."""


class Settings(BaseSettings):
    """Everything that can be set. In ``dat.toml`` the parts are tables; in the environment they are joined by ``__``,
    as in ``DAT_NIGHT__NEGATIVES=8``."""

    model_config = SettingsConfigDict(
        env_prefix="DAT_", env_nested_delimiter="__", toml_file="dat.toml", extra="forbid", frozen=True
    )

    home: Path = Path(".dat")
    """Where the system keeps everything: click lake, offline features, bundles, and the local stack's data."""
    data: Path = Path("../shared/data")
    """The folder that the folders named in dataset cards are in."""
    dataset: str = "movielens-100k"
    """The dataset card: its name, or the path of a TOML file."""
    redis: str | None = None
    """``host:port`` of the Redis that answers online, ``cluster:host:port,…`` of a cluster; without it SQLite does."""
    night: NightConfig = NightConfig()
    updater: UpdaterConfig = UpdaterConfig(bootstrap="127.0.0.1:9092")
    """Also where Kafka is: ``DAT_UPDATER__BOOTSTRAP``, and the TLS and SASL settings beside it."""
    serving: ServingConfig = ServingConfig()

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:  # fmt: skip
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def card(self) -> DatasetCard:
        return load_card(self.dataset)


def load_settings(**given: Any) -> Settings:
    """Settings with those options of the command line that were given (not None); ``bootstrap`` is the updater's.

    Raises:
        SettingsError: a value is not valid; the message says which.
    """
    given = {name: value for name, value in given.items() if value is not None}
    bootstrap = given.pop("bootstrap", None)
    try:
        settings = Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"the setting {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
    if bootstrap:
        settings = settings.model_copy(update={"updater": settings.updater.model_copy(update={"bootstrap": bootstrap})})
    return settings


def evaluation_settings(settings: Settings) -> dict[str, Any]:
    """What models are trained with to be compared: the card's settings, and over them those that the night's model was
    given; as far as either goes.

    Raises:
        CardError: the card names a setting that does not exist, or a value that it cannot have.
    """
    from training.config import DATConfig
    from training.models import over

    card = settings.card
    try:
        DATConfig.model_validate(card.evaluate.model)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("evaluate", "model", *first["loc"]))
        raise CardError(f"the card of '{card.name}': {where}: {first['msg']}") from None
    return over(card.evaluate.model, settings.night.model.model_dump(exclude_unset=True, exclude={"seed"}))


def claim_home(settings: Settings) -> None:
    """Make the home folder this dataset's, or find that it is another's: a home is one system with one log of clicks.

    Raises:
        CardError: it belongs to another dataset. OSError: it cannot be written.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    mark = settings.home / "dataset"
    name = settings.card.name
    if mark.is_file() and mark.read_text() != name:
        raise CardError(
            f"{settings.home} holds the dataset {mark.read_text()}, not {name}; give another folder with --home"
        )
    mark.write_text(name)


Home = Annotated[Path | None, typer.Option("--home", help="The system's home folder [DAT_HOME; default .dat].")]
Data = Annotated[str | None, typer.Option("--data", help="Dataset card: a name or a TOML file [DAT_DATASET].")]
Bootstrap = Annotated[str | None, typer.Option("--bootstrap", help="The Kafka brokers, host:port[,host:port].")]
Redis = Annotated[str | None, typer.Option("--redis", help="host:port of a Redis to answer online, instead of SQLite.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the summary to this file.")]
