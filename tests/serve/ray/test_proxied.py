"""`pyrf serve --ray` with TLS, below a path, and asked by many names and addresses."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

pytest.importorskip("ray", reason="Ray Serve is in the ray extra")

from pyrf.client import AsyncClient
from tests.serve.ray.test_app import RED, TIMEOUT_S, Cluster
from tests.support.certificates import write_certificate


@pytest.mark.slow
def test_names_addresses_and_tls_are_the_same_on_ray(tmp_path: Path) -> None:
    certfile, keyfile = map(str, write_certificate(tmp_path))
    options = ["--ssl-certfile", certfile, "--ssl-keyfile", keyfile, "--root-path", "/live"]
    options += ["--allowed-host", "video.example", "--creates-per-minute", "1"]
    cluster = Cluster(1, 1, *options)
    try:
        assert cluster.url.startswith("https://127.0.0.1:")

        async def watch() -> None:
            async with (
                AsyncClient(cluster.url, timeout=TIMEOUT_S, verify=certfile) as client,
                await client.create_session(RED) as session,
            ):
                assert (await anext(session)).header.frame == 0

        asyncio.run(watch())
        with httpx.Client(base_url=cluster.url, verify=False, timeout=TIMEOUT_S) as http:
            # Nobody is believed by accident: the address has begun its session of this minute.
            headers = {"X-Forwarded-For": "203.0.113.9"}
            again = http.post("v1/sessions", json={"prompt": RED}, headers=headers)
            assert (again.status_code, again.json()["error"]["code"]) == (429, "rate_limited")
            assert '<base href="/live/">' in http.get("", headers={"Host": "video.example"}).text
            foreign = http.get("v1/model", headers={"Host": "evil.example"})
            assert (foreign.status_code, foreign.json()["error"]["code"]) == (403, "forbidden_host")
            assert http.get("docs/").headers["location"] == "/live/docs"
    finally:
        assert cluster.close() == 0
