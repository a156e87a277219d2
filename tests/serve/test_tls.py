"""TLS without a proxy."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from pyrf.serve.server import bind
from pyrf.serve.settings import ServeSettings
from pyrf.serve.tls import tls_context
from tests.support.certificates import write_certificate
from tests.support.running import PROMPT, ROOMY, TIMEOUT, Running, read


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")  # it is refused, which is the test
def test_https_and_wss(pipe: Any, tmp_path: Path) -> None:
    certfile, keyfile = write_certificate(tmp_path)
    client = ssl.create_default_context(cafile=str(certfile))
    tls = tls_context(str(certfile), str(keyfile))
    with Running(pipe, ServeSettings(**ROOMY), sock=bind("127.0.0.1", 0), tls=tls) as server:
        url = server.url.replace("http://", "https://")
        with httpx.Client(base_url=url, verify=client, timeout=TIMEOUT) as http:
            page = {"Origin": url}
            assert http.get("/", headers=page).status_code == 200
            assert http.get("/docs").status_code == 200
            created = http.post("/v1/sessions", json={"prompt": PROMPT}, headers=page).json()
            # Another program of this machine, which speaks without TLS on that port, is another origin.
            assert http.get("/v1/model", headers={"Origin": server.url}).status_code == 403
        wss = f"{url.replace('https', 'wss')}/v1/sessions/{created['id']}/ws"
        headers = {"Authorization": f"Bearer {created['token']}", "Origin": url}
        with connect(wss, ssl=client, additional_headers=headers, open_timeout=TIMEOUT) as viewer:
            assert read(viewer).type == "hello"
            viewer.send(json.dumps({"type": "close"}))
        old = ssl.create_default_context(cafile=str(certfile))
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(httpx.ConnectError), httpx.Client(verify=old, timeout=TIMEOUT) as http:
            http.get(url)


def test_certificate_and_key_in_one_file(tmp_path: Path) -> None:
    certfile, keyfile = write_certificate(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(certfile.read_bytes() + keyfile.read_bytes())
    assert tls_context(str(both), None).minimum_version == ssl.TLSVersion.TLSv1_2


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    certfile, keyfile = map(str, write_certificate(tmp_path / "a"))
    other, other_key = map(str, write_certificate(tmp_path / "b"))
    guarded, guarded_key = map(str, write_certificate(tmp_path / "c", password=b"secret"))
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    for given, message in (
        (("./nowhere.pem", None), "cannot read nowhere.pem for TLS: No such file or directory"),
        ((certfile, "./nowhere.pem"), "cannot read nowhere.pem for TLS"),
        ((str(tmp_path), None), "for TLS: Is a directory"),
        ((certfile, None), "cert.pem hold no certificate with its key in PEM"),
        ((certfile, other_key), f"the key in {other_key} is not that of the certificate in {certfile}"),
        ((keyfile, certfile), "hold no certificate with its key in PEM"),
        ((str(text), keyfile), "hold no certificate with its key in PEM"),
        ((guarded, guarded_key), "a password guards the key"),
    ):
        with pytest.raises(ValueError, match=r"TLS|key") as refused:
            tls_context(*given)
        assert message in str(refused.value)
    assert other
