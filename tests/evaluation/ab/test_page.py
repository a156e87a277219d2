"""Raters of known preference: it comes back. The page's interface names no method, and refuses strangers."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("choix", reason="from the extras eval and serve")
pytest.importorskip("krippendorff", reason="from the extras eval and serve")
pytest.importorskip("fastapi", reason="from the extras eval and serve")
pytest.importorskip("httpx", reason="from the extras eval and serve")

from fastapi.testclient import TestClient

from pyrf import cli
from pyrf.evaluation.ab.page import MAX_BODY, make_app
from pyrf.evaluation.ab.study import make_study
from pyrf.evaluation.ab.votes import Votes

STRENGTHS = {"zulu": 1.5, "yankee": 0.0, "xray": -1.5}
Choose = Callable[[str, str], str]


@pytest.fixture
def votes(tmp_path: Path) -> Votes:
    """A study whose clips say their method, which only these raters can read."""
    folders = [tmp_path / method for method in STRENGTHS]
    for folder in folders:
        folder.mkdir()
        for i in range(10):
            (folder / f"a cat-{i}.mp4").write_text(f"{folder.name} {i}")
    return Votes(tmp_path / "votes.sqlite", make_study(folders, (), 30, 0))


def judge(votes: Votes, choose: Choose, *, attentive: bool = True) -> None:
    """A new rater answers all trials."""
    rater = votes.rater(votes.invite(1)[0])
    assert rater is not None
    for number, trial in enumerate(votes.study.plan(rater)):
        choice = trial.check if trial.check and attentive else choose(trial.a, trial.b)
        votes.keep(rater, number, trial, dict.fromkeys(votes.study.questions, choice), 3.0)


def by_strength(rng: np.random.Generator) -> Choose:
    def choose(a: str, b: str) -> str:
        return "a" if rng.random() < 1 / (1 + np.exp(STRENGTHS[b] - STRENGTHS[a])) else "b"

    return choose


def at_random(rng: np.random.Generator) -> Choose:
    return lambda a, b: str(rng.choice(["a", "b", "same"]))


def test_the_true_order_comes_back(votes: Votes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(8):
        judge(votes, by_strength(rng))
    judge(votes, lambda a, b: "a", attentive=False)
    file, table = str(tmp_path / "votes.sqlite"), tmp_path / "votes.csv"
    assert cli.run(["eval", "ab-results", file, "--json", "--csv", str(table)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["raters"], told["left_out"]) == (8, [8])
    for answer in told["answers"].values():
        assert [s["method"] for s in answer["strengths"]] == ["zulu", "yankee", "xray"]
        assert answer["ties"] == []
        for s in answer["strengths"]:
            assert s["low"] < s["value"] < s["high"]
            assert s["value"] == pytest.approx(STRENGTHS[s["method"]], abs=0.6)
        assert answer["agreement"] > 0.2
    with table.open(newline="") as rows:
        assert len(list(csv.DictReader(rows))) == 9 * 33 * 3
    assert cli.run(["eval", "ab-results", file]) == 0
    assert "8 raters; 1 left out" in capsys.readouterr().out


def test_random_raters_come_out_as_ties(
    votes: Votes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    for _ in range(8):
        judge(votes, at_random(rng))
    assert cli.run(["eval", "ab-results", str(tmp_path / "votes.sqlite"), "--json"]) == 0
    for answer in json.loads(capsys.readouterr().out)["answers"].values():
        assert len(answer["ties"]) == 3
        assert abs(answer["agreement"]) < 0.1
        assert all(w["low"] < 0.5 < w["high"] for w in answer["win_rates"])


def test_nothing_tells_the_methods_apart(votes: Votes) -> None:
    client = TestClient(make_app(votes))
    (token,) = votes.invite(1)
    seen = [client.get(f"/r/{token}"), client.get(f"/r/{token}/trial"), client.get("/static/ab.js")]
    clip = client.get(f"/r/{token}/clip/0/a", headers={"Range": "bytes=1-2"})
    assert clip.status_code == 206
    assert clip.headers.keys().isdisjoint({"etag", "last-modified", "content-disposition"})
    text = " ".join(reply.text + repr(dict(reply.headers)) for reply in seen) + repr(dict(clip.headers))
    assert not [method for method in STRENGTHS if method in text]
    assert "default-src 'none'" in seen[0].headers["content-security-policy"]


def test_strangers_and_wrong_answers_are_refused(votes: Votes) -> None:
    client = TestClient(make_app(votes))
    (token,) = votes.invite(1)
    for path in ("", "/trial", "/clip/0/a"):
        assert client.get(f"/r/nobody{path}").status_code == 404
    assert client.post("/r/nobody/votes", json={}).status_code == 404
    for path in ("clip/99/a", "clip/-1/a", "clip/0/c"):
        assert client.get(f"/r/{token}/{path}").status_code == 404
    assert client.get("/static/..%2Fpage.py").status_code == 404
    whole = {"trial": 0, "answers": dict.fromkeys(votes.study.questions, "a"), "seconds": 1}
    for wrong, code in (
        ({**whole, "trial": 1}, 409),
        ({**whole, "answers": {}}, 422),
        ({**whole, "answers": dict.fromkeys(votes.study.questions, "zulu")}, 422),
        ({**whole, "seconds": -1}, 422),
        ({**whole, "trial": -1}, 422),
        ({**whole, "padding": "x" * MAX_BODY}, 413),
    ):
        assert client.post(f"/r/{token}/votes", json=wrong).status_code == code
    assert client.post(f"/r/{token}/votes", content=b"\xff").status_code == 422
    assert client.get(f"/r/{token}/trial", params={"number": 1}).status_code == 409
    assert votes.all() == []
