"""Content credentials: a signed C2PA manifest in an MP4, which says that a model made it.

https://spec.c2pa.org/specifications/specifications/2.2/specs/C2PA_Specification.html: an action
`c2pa.created` with IPTC's digital source type for what a trained model makes.
"""

from __future__ import annotations

import hashlib
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pyrf.extras import needs
from pyrf.files import expanded
from pyrf.video.metadata import Metadata
from pyrf.video.writer import PathLike

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

MADE_BY_A_MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
DETAILS = "org.pyrf.generation"
"""Label of the assertion on prompt, seed and model."""
MP4_TYPE = "video/mp4"
MAX_PEM_BYTES = 1_000_000


class Signer:
    """Signs finished MP4s with a certificate.

    It signs a small picture first, so that what would not do is refused before a video is made. Nothing is
    asked of the network: there is no time stamp of an authority.

    Args:
        certificate: PEM file of the certificate, and of those that signed it, in this order.
        key: PEM file of its private key, without a password: EC, RSA or Ed25519.
        details: whether the manifest tells seed and model, and the SHA-256 of the prompt.

    Raises:
        MissingExtraError: when c2pa-python is not installed.
        ValueError: when a file cannot be read, the two do not go together, or C2PA does not take them.
    """

    def __init__(self, certificate: PathLike, key: PathLike, *, details: bool = False) -> None:
        with needs("provenance", "signing a video"):
            import c2pa
            from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
        self._c2pa, self._details, self._name = c2pa, details, Path(certificate).name
        chain, private = _read(certificate), _private_key(key)
        _check_certificate(certificate, chain, key, private)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            info = c2pa.C2paSignerInfo(_algorithm(key, private), chain, pem, None)
            self._signer = c2pa.Signer.from_info(info)
            self._try()
        except c2pa.C2paError as error:
            raise ValueError(
                f"C2PA does not sign with {certificate}: {_in_a_line(error)}; it must be for signing "
                "(digitalSignature, and emailProtection or documentSigning) and with its issuers"
            ) from error

    def __repr__(self) -> str:
        return f"Signer({self._name!r}, details={self._details})"

    def sign(self, source: BinaryIO | io.RawIOBase, target: BinaryIO, title: str, metadata: Metadata) -> None:
        """Write a signed copy.

        Args:
            source: a finished MP4, seekable.
            target: an empty file, readable, writable and seekable.
            title: the video's name in the manifest.
            metadata: how it was made; `details` are of it.

        Raises:
            ValueError: when it cannot be signed.
        """
        try:
            self._sign(MP4_TYPE, source, target, title, metadata)
        except self._c2pa.C2paError as error:
            raise ValueError(f"it cannot be signed: {_in_a_line(error)}") from error

    def _sign(self, form: str, source: Any, target: BinaryIO, title: str, metadata: Metadata) -> None:
        from pyrf import __version__

        action = {"action": "c2pa.created", "digitalSourceType": MADE_BY_A_MODEL}
        assertions: list[dict[str, Any]] = [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]
        if self._details:
            assertions.append({"label": DETAILS, "data": _details(metadata)})
        manifest = {
            "claim_generator_info": [{"name": "pyrf", "version": __version__}],
            "format": form,
            "title": title,
            "assertions": assertions,
        }
        with self._c2pa.Builder(manifest) as builder:
            builder.sign(self._signer, form, source, target)

    def _try(self) -> None:
        from PIL import Image

        picture, signed = io.BytesIO(), io.BytesIO()
        Image.new("RGB", (8, 8)).save(picture, "JPEG")
        picture.seek(0)
        self._sign("image/jpeg", picture, signed, "a try", {})


def _details(metadata: Metadata) -> dict[str, Any]:
    told = {name: metadata[name] for name in ("seed", "model") if name in metadata}
    if "prompt" in metadata:
        prompt = metadata["prompt"]
        text = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True)
        told["prompt_sha256"] = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
    return told


def _read(path: PathLike) -> bytes:
    try:
        with Path(expanded(path)).open("rb") as file:
            content = file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > MAX_PEM_BYTES:
        raise ValueError(
            f"{path} has more than {MAX_PEM_BYTES} bytes; it is no PEM file of a certificate or key"
        )
    return content


def _private_key(path: PathLike) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(_read(path), None)
    except TypeError as error:
        raise ValueError(f"{path} has a password; give the key without one") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path} is no private key in PEM") from error


def _algorithm(path: PathLike, key: PrivateKeyTypes) -> bytes:
    """The signature of a kind of key, in C2PA's words."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return b"ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return b"ps256"
    curves = {"secp256r1": b"es256", "secp384r1": b"es384", "secp521r1": b"es512"}
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in curves:
        return curves[key.curve.name]
    raise ValueError(f"{path} is a key of another kind; C2PA takes EC (P-256, P-384, P-521), RSA and Ed25519")


def _check_certificate(path: PathLike, chain: bytes, key_path: PathLike, key: PrivateKeyTypes) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        first = x509.load_pem_x509_certificates(chain)[0]
    except ValueError as error:
        raise ValueError(f"{path} is no certificate in PEM") from error
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if first.public_key().public_bytes(*form) != key.public_key().public_bytes(*form):
        raise ValueError(f"the first certificate of {path} is not that of the key {key_path}")
    begins, ends = first.not_valid_before_utc, first.not_valid_after_utc
    if not begins <= datetime.now(UTC) <= ends:
        raise ValueError(f"the certificate {path} is valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d} only")


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())
