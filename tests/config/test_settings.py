"""Settings: every variable, its default, and what is refused."""

import dataclasses
import os
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flash_runtime.config.settings import Settings
from flash_runtime.errors import SettingFault

BAD = {
    "PORT": ["0", "65536", "-1", "80.0", "http", "\uff18\uff10", "1_000", "+5"],
    "PORT_HEALTH": ["0", "eighty"],
    "HEALTH_CHECK_PATH": ["ping", "/a b", "/a?b", "/{x}", "/\x00", "/ü"],
    "FLASH_BUILD_ARTIFACT_PATH": ["artifact.tar.gz"],
    "FLASH_ARTIFACT_SHA256": ["abc", "g" * 64],
    "FLASH_ARTIFACT_WAIT": ["-1", "soon", "nan", "inf", "604801"],
    "FLASH_ARTIFACT_MAX_BYTES": ["0", "1GB"],
    "FLASH_ARTIFACT_MAX_MEMBERS": ["0"],
    "FLASH_DISABLE_UNPACK": ["maybe"],
    "FLASH_APP_DIR": ["app", "./app"],
    "FLASH_MANIFEST_PATH": ["flash_manifest.json"],
    "FLASH_SDK": ["vendor"],
    "FLASH_WORKERS": ["0", "many", "513"],
    "WEB_CONCURRENCY": ["0"],
    "FLASH_MAX_CONCURRENCY": ["0", "-1", "100001", "many"],
    "FLASH_MAX_QUEUE": ["-1", "1000001", "1.5"],
    "FLASH_MAX_BODY_BYTES": ["0", "-1", "30MB", "99999999999999"],
    "FLASH_REQUEST_TIMEOUT": ["0", "-1", "604801"],
    "FLASH_ROUTE_TIMEOUTS": [
        "60",
        "GET /x=60",
        '{"GET /x": 0}',
        '{"GET /x": "60"}',
        '{"GET /x": true}',
        "[1]",
    ],
    "FLASH_STALL_TIMEOUT": ["-1", "soon"],
    "FLASH_DRAIN_DELAY": ["-1", "nan"],
    "FLASH_STOP_TIMEOUT": ["0", "-1"],
    "FLASH_MAX_REQUESTS": ["0", "-1", "1e3"],
    "FLASH_MAX_RSS_MB": ["0", "-5", "1GB", "99999999"],
    "FLASH_BOOT_TIMEOUT": ["0", "-3"],
    "FLASH_DRAIN_TIMEOUT": ["-3"],
    "FLASH_PRELOAD": ["torch;numpy", "os, 1x"],
    "FLASH_PEER_URL": [
        "http://worker:80",
        "{resource}",
        "ftp://{resource}",
        "http://{resource}:abc",
        "http://{resource}:99999",
        "http://u:p@{resource}",
        "http://{resource}/?x",
        "http://[{resource}",
    ],
    "FLASH_PEERS": ["x", "[]", '{"a": 1}', '{"a": "b"}', '{"a": "http://b:x"}', "[" * 100_000],
    "LOG_LEVEL": ["loud"],
    "LOG_FORMAT": ["xml"],
    "FLASH_ACCESS_LOG": ["2"],
    "FLASH_API_KEY": ["two words", "schlüssel", "tab\tbed"],
    "FLASH_EXECUTE_TOKEN": ["two words"],
}


def test_an_empty_environment_gives_the_designs_defaults():
    settings = Settings.from_environ({})
    assert (settings.port, settings.port_health, settings.health_path) == (8000, 8000, "/ping")
    assert settings.artifact_path == Path("/root/.runpod/artifact.tar.gz")
    assert settings.app_dir == Path("/app")
    assert settings.manifest_path == Path("/app/flash_manifest.json")
    assert settings.workers is None
    assert (settings.request_timeout, settings.boot_timeout, settings.drain_timeout) == (330, 480, 30)
    assert settings.max_body_bytes == 30 * 1024 * 1024
    assert settings.access_log


def test_an_empty_value_counts_as_not_set():
    assert Settings.from_environ(dict.fromkeys(BAD, " ")) == Settings.from_environ({})


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in BAD for value in BAD[name]])
def test_a_bad_value_is_named_with_what_is_allowed(name, value):
    with pytest.raises(SettingFault) as caught:
        Settings.from_environ({name: value})
    assert f"{name}=" in str(caught.value)
    assert "it takes" in str(caught.value)


def test_every_bad_value_is_in_one_report():
    with pytest.raises(SettingFault) as caught:
        Settings.from_environ({name: values[0] for name, values in BAD.items()})
    assert [name for name in BAD if f"{name}=" not in caught.value.what] == []


@pytest.mark.parametrize("content", ["", " \n", "two words", "ü"])
def test_a_file_without_a_usable_secret_is_refused_and_its_content_is_not_shown(tmp_path, content):
    (tmp_path / "token").write_text(content)
    with pytest.raises(SettingFault, match="FLASH_EXECUTE_TOKEN_FILE=") as caught:
        Settings.from_environ({"FLASH_EXECUTE_TOKEN_FILE": str(tmp_path / "token")})
    assert "two words" not in str(caught.value)


def test_a_secret_is_not_awaited_from_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "token")
    with pytest.raises(SettingFault, match="FLASH_EXECUTE_TOKEN_FILE="):
        Settings.from_environ({"FLASH_EXECUTE_TOKEN_FILE": str(tmp_path / "token")})


@pytest.mark.parametrize("name", ["FLASH_API_KEY", "FLASH_EXECUTE_TOKEN"])
def test_a_secret_is_never_shown(name):
    with pytest.raises(SettingFault) as caught:
        Settings.from_environ({name: "hunter two"})
    assert "hunter" not in str(caught.value)
    assert "hunter2" not in repr(Settings.from_environ({name: "hunter2"}))


@pytest.mark.parametrize(
    ("environ", "field", "value"),
    [
        ({"PORT": "80"}, "port_health", 80),
        ({"FLASH_APP_DIR": "/srv"}, "manifest_path", Path("/srv/flash_manifest.json")),
        ({"WEB_CONCURRENCY": "3"}, "workers", 3),
        ({"WEB_CONCURRENCY": "3", "FLASH_WORKERS": "2"}, "workers", 2),
        ({"WEB_CONCURRENCY": "3", "FLASH_WORKERS": "auto"}, "workers", None),
        ({"FLASH_DISABLE_UNPACK": "True"}, "disable_unpack", True),
        ({"LOG_LEVEL": "warn"}, "log_level", "WARNING"),
        ({"LOG_FORMAT": "JSON"}, "log_format", "json"),
        ({"FLASH_PRELOAD": "torch, os.path"}, "preload", ("torch", "os.path")),
        ({"FLASH_RESOURCE_NAME": "*"}, "resource_name", "*"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "cuda_visible_devices", ""),
        ({"FLASH_REQUEST_TIMEOUT": "60"}, "stall_timeout", 60),
        ({"FLASH_REQUEST_TIMEOUT": "60", "FLASH_STALL_TIMEOUT": "0"}, "stall_timeout", 0),
        ({"FLASH_ROUTE_TIMEOUTS": '{"GET  /x": 1.5}'}, "route_timeouts", (("GET /x", 1.5),)),
        ({"FLASH_MAX_RSS_MB": "2"}, "max_rss_bytes", 2 * 1024 * 1024),
    ],
)
def test_a_value_is_read(environ, field, value):
    assert getattr(Settings.from_environ(environ), field) == value


@given(st.sampled_from(sorted(BAD)), st.text(string.printable, max_size=30))
def test_any_text_is_read_or_refused(name, text):
    refused = None
    try:
        Settings.from_environ({name: text})
    except SettingFault as fault:
        refused = str(fault)
    assert refused is None or name in refused


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings.from_environ({}).port = 1


@pytest.mark.parametrize("name", ["WEB_CONCURRENCY", "FLASH_API_KEY_FILE", "FLASH_EXECUTE_TOKEN_FILE"])
def test_a_bad_value_that_would_not_count_is_refused_all_the_same(name):
    preferred = {"FLASH_WORKERS": "2", "FLASH_API_KEY": "k", "FLASH_EXECUTE_TOKEN": "t"}
    with pytest.raises(SettingFault, match=f"{name}="):
        Settings.from_environ({**preferred, name: "no/such/file"})


def test_the_vendors_key_is_the_token_where_none_is_given(tmp_path):
    (tmp_path / "token").write_text("from-file\n")
    file = {"FLASH_EXECUTE_TOKEN_FILE": str(tmp_path / "token")}
    assert Settings.from_environ({"RUNPOD_API_KEY": "vendors"}).execute_token == "vendors"
    assert Settings.from_environ({"RUNPOD_API_KEY": "vendors", **file}).execute_token == "from-file"
    every = {"RUNPOD_API_KEY": "vendors", **file, "FLASH_EXECUTE_TOKEN": "given"}
    assert Settings.from_environ(every).execute_token == "given"


def test_a_misspelled_setting_is_noted_with_the_one_that_is_meant():
    settings = Settings.from_environ({"FLASH_WORKER": "2", "FLASH_ENDPOINT_ID": "x", "PATH": "/bin"})
    assert settings.misspelled == (("FLASH_WORKER", "FLASH_WORKERS"),)
