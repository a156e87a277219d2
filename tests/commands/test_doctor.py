"""`pyrf doctor` on this machine."""

from pathlib import Path

import pytest

from pyrf import cli
from tests.support.random_bundle import HEIGHT, WIDTH


def test_doctor_is_healthy_or_names_the_problem(
    random_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.run(["doctor", "--model", str(random_bundle)])
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if not line.startswith(" ")]
    found = {line[9:].split(":")[0]: line[:7].strip() for line in lines}
    assert set(found) >= {"pyrf", "torch", "cuda", "native module", "video codecs", f"model {random_bundle}"}
    assert all(found[name] == "ok" for name in found if name != "native module")
    assert f"its first chunk has 9 frames of {HEIGHT} x {WIDTH}" in out
    assert code == (1 if "problem" in found.values() else 0)


def test_doctor_reports_what_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "--model", "./nowhere"]) == 1
    out = capsys.readouterr().out
    assert "problem  model ./nowhere: " in out
    assert "ok       torch: " in out


def test_the_valley_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYRF_MODEL")
    examined: list[str] = []
    monkeypatch.setattr("pyrf.reports.doctor.report", lambda model, *_, **__: examined.append(model))
    cli.run(["doctor"])
    assert examined == ["valley"]
