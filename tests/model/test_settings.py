"""The settings: one tree, whose mistakes are named."""

from pathlib import Path

import pytest

from model.settings.settings import SettingsError, load_settings


def test_a_setting_comes_from_the_file_the_environment_goes_over_it_and_an_option_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dat.toml").write_text('home = "from-file"\n[night]\nnegatives = 8\nseed = 1\n')
    monkeypatch.setenv("DAT_NIGHT__SEED", "2")
    settings = load_settings(home=Path("from-option"), dataset=None)
    assert (settings.home, settings.night.negatives, settings.night.seed) == (Path("from-option"), 8, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[night]\nnegatives = 0\n", "night.negatives"),
        ("[night]\nnegative = 4\n", "night.negative"),
        ('[updater]\ngroup_prefix = "shop"\n', "the setting updater: group_prefix is called prefix now"),
        ("[serving.index]\nprobs = 4\n", "serving.index.probs: there is no such setting; there is probes"),
        ("[night\n", "dat.toml is not TOML"),
        ('redis = "redis://redis:6379"\n', "redis: is written without a scheme"),
        ('[updater]\nbootstrap = "http://kafka:9092"\n', "updater.bootstrap: is a list of brokers"),
        ('[updater]\nbootstrap = ","\n', "updater.bootstrap: is a list of brokers"),
    ],
    ids=[
        "a value that it cannot have",
        "a name that there is not",
        "a name of before",
        "a name that is like another",
        "no TOML",
        "Redis by URL",
        "Kafka by URL",
        "no broker",
    ],
)
def test_a_mistake_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dat.toml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        load_settings()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DAT_HOEM", "DAT_HOME"), ("DAT_NIGHT_NEGATIVES", "DAT_NIGHT__NEGATIVES"),
        ("DAT_NIGTH__NEGATIVES", "DAT_NIGHT__NEGATIVES"), ("DAT_SERVICE__DRAIN_S", "names no setting"),
        ("DAT_NIGHT_MODEL_EPOCHS", "DAT_NIGHT__MODEL__EPOCHS"), ("DAT_SECRET_DIR", "DAT_SECRETS_DIR"),
    ],
)  # fmt: skip
def test_a_mistyped_name_in_the_environment_is_refused_and_not_passed_over(monkeypatch, name: str, meant: str):
    monkeypatch.setenv(name, "4")
    with pytest.raises(SettingsError, match=meant):
        load_settings()


def test_names_in_the_environment_that_others_have_made_are_passed_over(monkeypatch: pytest.MonkeyPatch):
    theirs = {
        "DAT_SERVE_SERVICE_HOST": "10.0.0.1",
        "DAT_UPDATER_METRICS_PORT": "tcp://10.0.0.1:9100",
        "DAT_SERVE__CANARY_SERVICE_HOST": "10.0.0.1",
        "DAT_REDIS_PORT_6379_TCP_ADDR": "10.0.0.1",
        "DAT_IMAGES": "x",
        "DAT_DATE": "2026-12-01",
    }
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    load_settings()


def test_brokers_are_listed_with_or_without_spaces_also_by_an_option():
    for given in ("a:1,b:2", "a:1, b:2", "[::1]:9092", "kafka"):
        assert load_settings(bootstrap=given).updater.bootstrap == given.replace(" ", "")
    with pytest.raises(SettingsError, match="host:port"):
        load_settings(bootstrap="http://a:1")
    assert load_settings(bootstrap="a:1,b:2,").updater.bootstrap == "a:1,b:2"


def test_a_list_in_the_environment_that_is_not_json_is_told_and_no_other_source_is_blamed(monkeypatch):
    monkeypatch.setenv("DAT_SERVING__CORS_ORIGINS", "https://shop.example")
    with pytest.raises(SettingsError, match='field "serving".*JSON') as error:
        load_settings()
    assert "SECRETS" not in str(error.value)


def test_a_password_of_redis_has_any_characters(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAT_REDIS", "redis:6379,password=a://b")
    assert load_settings().redis == "redis:6379,password=a://b"


def test_a_folder_of_secrets_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAT_SECRETS_DIR", "/not/there")
    with pytest.raises(SettingsError, match="DAT_SECRETS_DIR.*/not/there"):
        load_settings()


def test_secrets_come_from_files_as_an_orchestrator_mounts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written = tmp_path / "..2026_11_29"
    written.mkdir()
    secrets = {"updater__sasl_plain_password": 'p,="ä', "serving__api_key": "a-long-key", "redis": "redis:6379"}
    for name, text in secrets.items():
        (written / name).write_text(text + "\n")
    (tmp_path / "..data").symlink_to(written.name)
    for name in secrets:
        (tmp_path / name).symlink_to(Path("..data") / name)
    monkeypatch.setenv("DAT_SECRETS_DIR", str(tmp_path))
    settings = load_settings()
    assert settings.updater.sasl_plain_password == secrets["updater__sasl_plain_password"]
    assert settings.serving.api_key is not None and settings.serving.api_key.get_secret_value() == "a-long-key"
    assert settings.redis == "redis:6379" and "a-long-key" not in repr(settings)
    monkeypatch.setenv("DAT_REDIS", "other:6379")
    assert load_settings().redis == "other:6379"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("s3a://bucket/dat", "s3://bucket/dat"),
        ("s3://bucket/dat/", "s3://bucket/dat"),
        ("gs://bucket/dat", "gs://bucket/dat"),
        (Path("hdfs://name/dat"), "hdfs://name/dat"),
    ],
)
def test_a_home_by_url_has_a_folder_on_each_machine_and_its_bundles_lie_there(
    given, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DAT_HOME", str(given))
    monkeypatch.setenv("DAT_SCRATCH", str(tmp_path))
    settings = load_settings()
    assert (settings.home_url, str(settings.shared), settings.bundles) == (url, url, f"{url}/bundles")
    assert settings.home.parent == tmp_path and settings.home.is_absolute(), "no folder of the scheme's name"
    assert load_settings(home="s3://bucket/other").home != settings.home
    assert load_settings(bundles="gs://b/bundles").bundles == "gs://b/bundles"
    assert load_settings(home=tmp_path).shared == tmp_path and load_settings(home=tmp_path).bundles is None
    assert load_settings(home="file:///var/dat").home == Path("/var/dat")


def test_a_url_that_cannot_be_a_home_or_a_folder_is_named(monkeypatch):
    with pytest.raises(SettingsError, match="home: ftp://name/dat is no URL of an object store"):
        load_settings(home="ftp://name/dat")
    with pytest.raises(SettingsError, match="home: s3:///dat is no URL of an object store: .* and a bucket"):
        load_settings(home="s3:///dat")
    with pytest.raises(SettingsError, match="scratch: .* is no folder or file here"):
        load_settings(scratch="s3://bucket/scratch")
    with pytest.raises(SettingsError, match="home: a home's URL has no options: another endpoint is AWS_ENDPOINT_URL"):
        load_settings(home="s3://bucket/dat?endpoint_override=minio:9000")
    monkeypatch.setenv("DAT_DATA", "s3://bucket/logs")
    with pytest.raises(SettingsError, match="data: .* is no folder or file here: mount that storage"):
        load_settings()
