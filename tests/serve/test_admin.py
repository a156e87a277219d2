"""What the key of an admin opens, by HTTP, by the client and by the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pyrf import cli
from pyrf.client import Admin, BadArgumentError, RefusedError
from tests.serve.keys.test_served import begin, file
from tests.serve.test_envelope import Lines, log
from tests.serve.test_limits import error_of
from tests.support.api_keys import add_key, bearing
from tests.support.running import PROMPT, Running, read_frames, read_until

__all__ = ["file", "log"]

Serve = Callable[..., Running]
CALLS = (
    ("GET", "/v1/admin/sessions"),
    ("DELETE", "/v1/admin/sessions/any"),
    ("POST", "/v1/admin/drain"),
    ("POST", "/v1/admin/undrain"),
)


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_nobody_else_gets_in(serve: Serve, file: Path, method: str, path: str) -> None:
    studio, watcher = add_key(file, "studio"), add_key(file, "watcher", may=("metrics",))
    guarded, everyones = serve(keys=str(file), token="the-one-of-all"), serve()
    created = begin(guarded, studio).json()
    for secret in (studio, watcher, "the-one-of-all", created["token"], "wrong"):
        refused = guarded.http.request(method, path, headers=bearing(secret))
        assert error_of(refused, 401)["code"] == "unauthorized"
        assert error_of(everyones.http.request(method, path, headers=bearing(secret)), 401)
    assert error_of(everyones.http.request(method, path), 401)  # not even where sessions are everyone's
    assert not guarded.registry.admission.closed_to_new
    assert guarded.session(created) is not None


def test_sessions_of_all_keys_are_seen_and_ended(serve: Serve, file: Path, log: Lines) -> None:
    ops, studio = add_key(file, "ops", may=("admin",)), add_key(file, "studio")
    server = serve(keys=str(file), token="the-one-of-all")
    seen, idle = begin(server, studio).json(), begin(server, "the-one-of-all").json()
    with Admin(server.url, ops) as admin, server.attach(seen) as viewer:
        read_frames(viewer, 1)
        overview = admin.overview()
        assert not overview.draining
        first, second = overview.sessions
        assert (first.id, first.key, first.state, first.viewers) == (seen["id"], "studio", "running", 1)
        assert (second.id, second.key, second.state, second.viewers) == (idle["id"], "token", "detached", 0)
        assert (first.model, first.address, first.clip) == ("random", "127.0.0.1", False)
        assert first.age_s >= second.age_s > 0
        assert first.frames_made > 0
        told = server.http.get("/v1/admin/sessions", headers=bearing(ops)).text
        assert not [secret for secret in (seen["token"], idle["token"], PROMPT) if secret in told]

        admin.end(seen["id"])
        assert read_until(viewer, "closing").reason == "closed"
        assert [one.id for one in admin.overview().sessions] == [idle["id"]]
        with pytest.raises(RefusedError, match="no such session"):
            admin.end(seen["id"])
        with pytest.raises(BadArgumentError, match="no id of a session"):
            admin.end("../sessions")
    assert ops not in str(log.lines)


def test_a_drained_server_lets_those_go_on_who_are_there(serve: Serve, file: Path, log: Lines) -> None:
    ops, studio = add_key(file, "ops", may=("admin",)), add_key(file, "studio")
    server = serve(keys=str(file))
    created = begin(server, studio).json()
    with Admin(server.url, ops) as admin, server.attach(created) as viewer:
        for _ in range(2):  # it may be said twice
            overview = admin.drain()
            assert overview.draining
            assert [one.id for one in overview.sessions] == [created["id"]]
        for path in ("/v1/sessions", "/v1/videos"):
            reply = begin(server, studio, path)
            assert error_of(reply, 503)["code"] == "draining"
            assert int(reply.headers["retry-after"]) > 0
        assert error_of(server.http.get("/health/ready"), 503)["code"] == "draining"
        assert server.http.get("/health/live").status_code == 200
        read_frames(viewer, 30)
        assert server.post(created, "/prompt", prompt="a blue square").status_code == 200
        assert not admin.undrain().draining
        assert server.http.get("/health/ready").status_code == 200
        assert begin(server, studio).status_code == 201
    assert len(log.of("closed to new sessions")) == 2
    assert [line["sessions"] for line in log.of("open to new sessions")] == [1]


def test_the_command_line(
    serve: Serve, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ops, studio = add_key(file, "ops", may=("admin",)), add_key(file, "studio")
    server = serve(keys=str(file))
    created = begin(server, studio).json()

    def admin(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(["admin", *arguments, "--url", server.url])
        return code, *capsys.readouterr()

    monkeypatch.setenv("PYRF_TOKEN", ops)
    code, out, _ = admin("sessions")
    heading, row = out.splitlines()
    assert code == 0
    assert heading.split() == ["id", "key", "address", "model", "state", "age", "viewers", "frames"]
    assert row.split()[:5] == [created["id"], "studio", "127.0.0.1", "random", "detached"]
    assert row.split()[6] == "0"
    assert admin("drain")[2] == "the server takes no new sessions\n"
    assert server.http.get("/health/ready").status_code == 503
    assert admin("undrain")[:2] == (0, f"{server.url} takes new sessions\n")
    assert server.http.get("/health/ready").status_code == 200
    assert admin("end", created["id"])[:2] == (0, f"ended {created['id']}\n")
    assert server.session(created) is None
    code, _, err = admin("end", created["id"])
    assert (code, err) == (2, "error: there is no such session; it may have ended already\n")
    monkeypatch.setenv("PYRF_TOKEN", studio)
    code, _, err = admin("sessions")
    assert code == 2
    assert "the key studio may not do this; take one whose rights include 'admin'" in err
