"""Certificates that may sign content, with an authority of their own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
KINDS = ("p256", "p384", "rsa", "ed25519")


class Credentials(NamedTuple):
    """PEM files: a certificate with that of its authority, its key, and the authority alone."""

    certificate: Path
    key: Path
    authority: Path


def make_key(kind: str) -> Key:
    """A new key of one of `KINDS`."""
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP384R1() if kind == "p384" else ec.SECP256R1())


def write_credentials(
    folder: Path, kind: str = "p256", *, days: int = 2, password: bytes | None = None
) -> Credentials:
    """Files of a new authority and of a signer.

    Args:
        days: until the certificate ends; negative: it has ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    above, own = make_key("p256"), make_key(kind)
    authority = _certificate("authority", above, "authority", above, days=9)
    certificate = _certificate("signer", own, "authority", above, days=days)
    pem = serialization.Encoding.PEM
    found = Credentials(folder / "cert.pem", folder / "key.pem", folder / "authority.pem")
    found.certificate.write_bytes(certificate.public_bytes(pem) + authority.public_bytes(pem))
    found.authority.write_bytes(authority.public_bytes(pem))
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    found.key.write_bytes(own.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption))
    return found


def _certificate(name: str, key: Key, issuer: str, issuer_key: Key, *, days: int) -> x509.Certificate:
    is_authority, now = name == issuer, datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
        .add_extension(usage, critical=True)
    )
    if not is_authority:
        made = made.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
    return made.sign(issuer_key, hashes.SHA256())


def _name(name: str) -> x509.Name:
    names = (NameOID.ORGANIZATION_NAME, "pyrf test"), (NameOID.COMMON_NAME, name)
    return x509.Name([x509.NameAttribute(*one) for one in names])
