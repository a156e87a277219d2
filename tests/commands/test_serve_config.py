"""`pyrf serve --config`: files and variables give what flags give, and the settings that have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyrf import cli
from pyrf.commands.serve_config import UNFLAGGED
from pyrf.serve.settings import ServeSettings


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServeSettings]:
    """What servers were started with, which do not run."""
    settings: list[ServeSettings] = []
    monkeypatch.setattr("pyrf.serve.server.run", lambda app, given, sock, **_: settings.append(given))
    return settings


def start(folder: Path, text: str, *arguments: str) -> int:
    file = folder / "server.yaml"
    file.write_text(text)
    return cli.run(["serve", "--port", "0", "--config", str(file), *arguments])


FILE = """
max-sessions: 3
max_minutes: 2
webrtc: false
origin: [https://a, https://b]
allowed-host: video.example
token: null
max_prompt_chars: 99
jpeg-quality: 80
"""


def test_a_file_gives_settings_with_and_without_a_flag(tmp_path: Path, served: list[ServeSettings]) -> None:
    assert start(tmp_path, FILE) == 0
    assert served == [
        ServeSettings(
            max_sessions=3,
            max_session_s=120.0,
            webrtc=False,
            origins=("https://a", "https://b"),
            allowed_hosts=("video.example",),
            max_prompt_chars=99,
            jpeg_quality=80,
        )
    ]


def test_variables_win_over_the_file_and_flags_over_both(
    tmp_path: Path, served: list[ServeSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYRF_SERVE_MAX_SESSIONS", "5")
    monkeypatch.setenv("PYRF_SERVE_MAX_BATCH", "2")
    assert start(tmp_path, FILE, "--max-batch", "1") == 0
    assert (served[0].max_sessions, served[0].max_batch) == (5, 1)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("model: valley", {"valley": "valley"}),
        ("model: [valley, small=tiny]", {"valley": "valley", "small": "tiny"}),
        ("max-sessions: 1", {"valley": "valley"}),  # the default
    ],
)
def test_a_file_names_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, expected: dict[str, str]
) -> None:
    found: list[Any] = []
    monkeypatch.delenv("PYRF_MODEL")
    monkeypatch.setattr("pyrf.commands.serve._serve", lambda models, *_: found.append(models))
    assert start(tmp_path, line) == 0
    assert start(tmp_path, line, "--model", "tiny") == 0
    assert found == [expected, {"tiny": "tiny"}]


def test_every_setting_can_be_given(tmp_path: Path, served: list[ServeSettings]) -> None:
    values: dict[str, Any] = {}
    for name in UNFLAGGED:
        default = getattr(ServeSettings(), name)
        values[name] = "a" if isinstance(default, str) else 5000 if default is None else default
    assert start(tmp_path, "\n".join(f"{name}: {value!r}" for name, value in values.items())) == 0
    assert served == [ServeSettings(**values)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max-session: 3", "there is no setting 'max-session'; did you mean 'max-sessions'?"),
        ("nonsense: 3", "there is no setting 'nonsense'; `pyrf serve --help` lists the flags"),
        ("loopback: true", "there is no setting 'loopback'"),
        ("config: other.yaml", "there is no setting 'config'"),
        ("max-sessions: many", "Invalid value for '--max-sessions'"),
        ("max_prompt_chars: many", "max_prompt_chars must be int, got 'many'"),
        ("max_prompt_chars: true", "max_prompt_chars must be int, got True"),
        ("jpeg_quality: 99", "jpeg_quality must be 1..95, got 99"),
        ("- 3", "must hold `name: value` lines, got list"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_wrong_file_is_refused(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str], served: list[ServeSettings]
) -> None:
    assert start(tmp_path, text) != 0
    assert message in capsys.readouterr().err
    assert served == []


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["serve", "--config", "nowhere.yaml"]) != 0
    assert "--config nowhere.yaml cannot be read: No such file" in capsys.readouterr().err
