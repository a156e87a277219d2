"""TLS without a proxy: a certificate and its key, looked at before the model is loaded."""

from __future__ import annotations

import ssl
from pathlib import Path

from pyrf.files import expanded


def tls_context(certfile: str, keyfile: str | None) -> ssl.SSLContext:
    """For a server, TLS 1.2 at least.

    Args:
        certfile: PEM, the server's certificate and those between it and the root.
        keyfile: PEM; None when the key stands in `certfile`.

    Raises:
        ValueError: when a file is missing or no PEM, the key is another's, or a password guards it.
    """
    paths = [Path(expanded(name)) for name in (certfile, keyfile) if name is not None]
    for path in paths:
        try:
            path.open("rb").close()
        except OSError as error:
            raise ValueError(f"cannot read {path} for TLS: {error.strerror}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    key = paths[-1]
    try:
        context.load_cert_chain(paths[0], key, password=_refuse_password)
    except _PasswordError:
        raise ValueError(
            f"a password guards the key in {key}, and nobody is there to type it; "
            f"write it without one: openssl pkey -in {key} -out plain.pem"
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"the key in {key} is not that of the certificate in {paths[0]}") from None
        where = paths[0] if len(set(paths)) == 1 else f"{paths[0]} and {key}"
        raise ValueError(
            f"{where} hold no certificate with its key in PEM ({error.reason or error}); "
            "expected -----BEGIN CERTIFICATE----- and -----BEGIN PRIVATE KEY-----"
        ) from None
    return context


class _PasswordError(Exception):
    pass


def _refuse_password() -> str:
    raise _PasswordError
