"""Signed MP4s, as the reader of c2pa-python sees them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

pytest.importorskip("c2pa", reason="signing needs the provenance extra")

import c2pa

from pyrf import __version__, cli
from pyrf.partial import KeptError
from pyrf.video import Signer, Video, open_writer
from tests.support.certificates import write_certificate
from tests.support.credentials import KINDS, Credentials, write_credentials
from tests.support.video_files import ramp

MADE = {"prompt": "a réd circle", "seed": 2**63 - 1, "model": "tiny"}


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return write_credentials(tmp_path_factory.mktemp("credentials"))


def look(path: Path, credentials: Credentials | None = None) -> tuple[str, dict[str, Any]]:
    """What the reader says of a file: its verdict, and the manifest; with an authority that it trusts."""
    trust: dict[str, Any] = {"verify": {"verify_trust": True}}
    if credentials is not None:
        trust["trust"] = {"user_anchors": credentials.authority.read_text()}
    context = c2pa.Context.from_dict(trust)
    with path.open("rb") as file, c2pa.Reader("video/mp4", file, context=context) as reader:
        return reader.get_validation_state(), reader.get_active_manifest()


def assertions(manifest: dict[str, Any]) -> dict[str, Any]:
    return {one["label"]: one["data"] for one in manifest["assertions"]}


def frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("kind", KINDS)
def test_readers_verify_it(tmp_path: Path, kind: str) -> None:
    """The manifest says that a model made it, and nothing of the prompt. Frames and tags are as before."""
    made = write_credentials(tmp_path / "own", kind)
    signer = Signer(made.certificate, made.key)
    plain = Video(ramp(), 16, MADE).save(tmp_path / "plain.mp4")
    signed = Video(ramp(), 16, MADE).save(tmp_path / "signed.mp4", signer=signer)
    state, manifest = look(signed, made)
    assert state == "Trusted"
    assert look(signed)[0] == "Valid"  # by a certificate that nobody knows
    generator = manifest["claim_generator_info"][0]
    assert (generator["name"], generator["version"], manifest["title"]) == ("pyrf", __version__, "signed.mp4")
    (action,) = assertions(manifest)["c2pa.actions.v2"]["actions"]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"].endswith("/digitalsourcetype/trainedAlgorithmicMedia")
    assert not any(word in json.dumps(manifest) for word in ("circle", "seed", "tiny"))
    assert np.array_equal(frames(signed), frames(plain))
    with av.open(str(signed)) as container:
        assert json.loads(container.metadata["comment"]) == MADE
    Video(ramp(), 16).save(tmp_path / "again.mp4", signer=signer)  # a signer signs more than once
    assert look(tmp_path / "again.mp4", made)[0] == "Trusted"


def test_a_changed_file_is_found_out(tmp_path: Path, credentials: Credentials) -> None:
    signer = Signer(credentials.certificate, credentials.key)
    path = Video(ramp(), 16).save(tmp_path / "a.mp4", signer=signer)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    assert look(path, credentials)[0] == "Invalid"


def test_details_are_signed_where_asked_for(tmp_path: Path, credentials: Credentials) -> None:
    signer = Signer(credentials.certificate, credentials.key, details=True)
    mixed = {**MADE, "prompt": {"b": 0.5, "a": 0.5}}
    for made, text in ((MADE, "a réd circle"), (mixed, '{"a": 0.5, "b": 0.5}')):
        path = Video(ramp(), 16, made).save(tmp_path / "a.mp4", signer=signer)
        told = assertions(look(path)[1])["org.pyrf.generation"]
        digest = hashlib.sha256(text.encode()).hexdigest()
        assert told == {"seed": MADE["seed"], "model": "tiny", "prompt_sha256": digest}


def test_what_cannot_sign(tmp_path: Path, credentials: Credentials) -> None:
    other = write_credentials(tmp_path / "other")
    ended = write_credentials(tmp_path / "ended", days=-1)
    locked = write_credentials(tmp_path / "locked", password=b"secret")
    tls = write_certificate(tmp_path / "tls")
    certificate, key, _ = credentials
    for pair, words in (
        ((certificate, other.key), "is not that of the key"),
        (ended[:2], "is valid from .* only"),
        (locked[:2], "has a password"),
        (tls, "C2PA does not sign with .*cert.pem"),
        ((key, key), "is no certificate in PEM"),
        ((certificate, certificate), "is no private key in PEM"),
        ((tmp_path / "nowhere", key), "cannot read .*nowhere: No such file"),
    ):
        with pytest.raises(ValueError, match=words):
            Signer(*pair)


def test_other_outputs_are_refused(tmp_path: Path, credentials: Credentials) -> None:
    signer = Signer(credentials.certificate, credentials.key)
    for name in ("a.webm", "a.mov", "a/", "a.png"):
        with pytest.raises(ValueError, match=r"only finished \.mp4 files are signed"):
            open_writer(tmp_path / name if name != "a/" else f"{tmp_path}/a/", 16, signer=signer)
    with (tmp_path / "pipe").open("wb") as file, pytest.raises(ValueError, match="not a pipe"):
        open_writer(file, 16, signer=signer)


def test_a_video_that_cannot_be_signed_is_not_lost(
    tmp_path: Path, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("it cannot be signed: no space")

    signer = Signer(credentials.certificate, credentials.key)
    monkeypatch.setattr(signer, "sign", fail)
    with pytest.raises(KeptError, match="it cannot be signed: no space; what was made is whole") as raised:
        Video(ramp(), 16).save(tmp_path / "a.mp4", signer=signer)
    assert not (tmp_path / "a.mp4").exists()
    assert [path.name for path in tmp_path.iterdir()] == [raised.value.kept.name] == ["a-1.mp4"]
    assert len(frames(raised.value.kept)) == len(ramp())


def test_the_command_signs(
    tmp_path: Path, random_bundle: Path, credentials: Credentials, capsys: pytest.CaptureFixture[str]
) -> None:
    out, sign = tmp_path / "a.mp4", ["--sign", *map(str, credentials[:2])]
    call = ["generate", "a red circle", "--seed", "7", "--seconds", "0.5", "--model", str(random_bundle)]
    assert cli.run([*call, "-o", str(out), *sign, "--sign-details"]) == 0, capsys.readouterr().err
    state, manifest = look(out, credentials)
    assert (state, assertions(manifest)["org.pyrf.generation"]["seed"]) == ("Trusted", 7)
    none = ["generate", "a", "--model", "no-such-model", "-o"]
    (tmp_path / "p.txt").write_text("a")
    for refused, words in (
        ([*none, f"{tmp_path}/b.webm", *sign], "only finished .mp4 files are signed"),
        ([*none, "-", *sign], "only finished .mp4 files are signed"),
        ([*none, f"{tmp_path}/b.mp4", *sign, "--image", "photo.png"], "leave out --image and --source"),
        ([*none, f"{tmp_path}/b.mp4", "--sign-details"], "--sign-details goes with --sign"),
        (["generate", "--prompts", f"{tmp_path}/p.txt", "-o", f"{tmp_path}/b", *sign], "and --sign"),
    ):
        assert cli.run(refused) == 2
        assert words in capsys.readouterr().err


def test_without_the_extra_it_says_so(credentials: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(ValueError, match=r"signing a video needs c2pa; run pip install '\.\[provenance\]'"):
        Signer(credentials.certificate, credentials.key)
