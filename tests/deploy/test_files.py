"""The files in deploy/: they name what there is, and agree with each other and with the server."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

pytest.importorskip("prometheus_client", reason="the server's metrics come with the serve extra")

from pyrf import cli
from pyrf.commands.app import app
from pyrf.protocol.terms import CLOSE_CODES
from pyrf.serve.metrics import Metrics
from pyrf.serve.settings import ServeSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = ("Dockerfile", "Dockerfile.cuda")


def parameters() -> list[Any]:
    """Of `pyrf serve`."""
    command: Any = typer.main.get_command(app)
    return list(command.commands["serve"].params)


def kubernetes() -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes/pyrf.yaml").read_text())
    return {document["kind"]: document for document in documents}


def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dockerfiles_are_clean(name: str) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("no hadolint: it comes with the test extra on Linux, x86-64")
    result = subprocess.run([hadolint, DEPLOY / name], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_are_made_by_the_script_and_run_as_nobody(name: str) -> None:
    text = (DEPLOY / name).read_text()
    stages = text.split("\nFROM ")
    assert "/src/deploy/install.sh /opt/pyrf" in stages[1]
    assert "USER 10001" in stages[-1]
    assert "/health/live" in stages[-1]
    variables = re.findall(r"\b(PYRF_\w+)=(\S+)", stages[-1])
    assert len(variables) >= 2
    names = {parameter.name for parameter in parameters()}
    assert {name.removeprefix("PYRF_SERVE_").lower() for name, _ in variables} <= names


@pytest.mark.parametrize("where", ["server.yaml", "kubernetes"])
def test_settings_are_those_of_the_server(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "server.yaml"
    text = kubernetes()["ConfigMap"]["data"]["server.yaml"] if where == "kubernetes" else None
    file.write_text(text or (DEPLOY / where).read_text())
    served: list[ServeSettings] = []
    monkeypatch.setattr("pyrf.serve.server.run", lambda app, settings, sock, **_: served.append(settings))
    assert cli.run(["serve", "--port", "0", "--config", str(file)]) == 0
    assert (served[0].max_sessions, served[0].webrtc) == (8, False)
    assert served[0].trusted_proxies


def test_the_compose_file_lets_nobody_in_but_through_caddy() -> None:
    services = compose()
    assert "ports" not in services["pyrf"]
    assert services["pyrf"]["command"][:3] == ["serve", "--config", "/etc/pyrf/server.yaml"]
    assert services["caddy"]["command"][-1] == "pyrf:8000"
    subnet = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["networks"]["inside"]["ipam"]["config"][0]
    assert yaml.safe_load((DEPLOY / "server.yaml").read_text())["trusted-proxy"] == [subnet["subnet"]]


def test_probes_and_patience_fit_the_server() -> None:
    pod = kubernetes()["Deployment"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    patience = [
        pod["terminationGracePeriodSeconds"],
        int(compose()["pyrf"]["stop_grace_period"].removesuffix("s")),
        int(re.findall(r"TimeoutStopSec=(\d+)", (DEPLOY / "pyrf.service").read_text())[0]),
    ]
    assert min(patience) > ServeSettings().drain_s
    names = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == names


def test_the_unit_runs_a_command_that_there_is() -> None:
    start = re.findall(r"ExecStart=(.+)", (DEPLOY / "pyrf.service").read_text())[0]
    program, command, *flags = shlex.split(start)
    assert (program, command) == ("/opt/pyrf/bin/pyrf", "serve")
    known = {option for parameter in parameters() for option in parameter.opts}
    assert {flag for flag in flags if flag.startswith("--")} <= known


def test_dashboard_and_alerts_ask_for_metrics_that_there_are() -> None:
    metrics = Metrics()
    names = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    names |= {f"{family.name}_total" for family in metrics.registry.collect() if family.type == "counter"}
    names |= {f"{family.name}_bucket" for family in metrics.registry.collect() if family.type == "histogram"}
    names |= {family.name for family in metrics.registry.collect() if family.type == "gauge"}
    panels = json.loads((DEPLOY / "grafana/pyrf.json").read_text())["panels"]
    rules = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"][0]["rules"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    asked += [rule["expr"] for rule in rules]
    wanted = {name for expression in asked for name in re.findall(r"\bpyrf_\w+", expression)}
    assert len(wanted) > 8
    assert wanted <= names
    reasons = re.findall(r'reason=~"([^"]+)"', "\n".join(asked))[0].split("|")
    assert set(reasons) <= set(CLOSE_CODES)
