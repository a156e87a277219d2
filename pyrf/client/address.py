"""Where a server is, and how it is reached: URL, Unix socket, TLS, proxy."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from pyrf.client.errors import BadArgumentError, UnreachableError

Verify = bool | str | os.PathLike[str] | ssl.SSLContext
"""How a certificate is looked at: as browsers do, not at all, by a file of authorities, or your own way."""

_SOCKS_NEEDS = ("socksio", "python_socks")


@dataclass(frozen=True)
class Address:
    """A server's place.

    Attributes:
        http, ws: beginnings of its URLs, without a slash at the end.
        uds: path of a Unix socket; the URLs then only name a host.
        proxy: URL of the proxy on the way, if there is one.
        tls: for `https`.
    """

    http: str
    ws: str
    uds: str | None = None
    proxy: str | None = None
    tls: ssl.SSLContext | None = None


def parse_address(url: str, verify: Verify = True) -> Address:
    """A server's place from `http://host:port/path`, `https:`, or `unix:/path/of/socket`.

    Proxies are those of HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY; this machine is asked directly.

    Raises:
        BadArgumentError: when it is none of these; passwords in it are not told.
        UnreachableError: when the way leads through a proxy that cannot be used.
    """
    if url.startswith("unix:"):
        path = re.sub("^//+", "/", url.removeprefix("unix:"))
        if not path.startswith("/"):
            raise BadArgumentError(
                f"a Unix socket is named by its whole path, as unix:/run/pyrf.sock, got {url!r}"
            )
        return Address("http://localhost", "ws://localhost", uds=path)
    parts = _parts(url)
    host = parts.hostname or ""
    place = f"[{host}]" if ":" in host else host
    place += "" if parts.port is None else f":{parts.port}"
    path = parts.path.rstrip("/")
    secure = parts.scheme == "https"
    return Address(
        f"{parts.scheme}://{place}{path}",
        f"{'wss' if secure else 'ws'}://{place}{path}",
        proxy=_proxy_to(parts.scheme, host, parts.port),
        tls=_tls(verify) if secure else None,
    )


def _parts(url: str) -> SplitResult:
    expected = "expected the like of http://127.0.0.1:8000, https://video.example/live or unix:/run/pyrf.sock"
    try:
        parts = urlsplit(url)
        usable = parts.port is None or parts.port > 0
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\\]", url) or not url.isprintable():
        raise BadArgumentError(f"no server is named by this URL: it is malformed; {expected}")
    if parts.username is not None or parts.password is not None:
        raise BadArgumentError(
            f"the URL holds a user or password; pass the server's token as token=; {expected}"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        hint = f"; did you mean http://{url}?" if re.fullmatch(r"[\w.-]+:\d+(/\S*)?", url) else ""
        raise BadArgumentError(f"no server is named by {url!r}; {expected}{hint}")
    if parts.query or parts.fragment:
        raise BadArgumentError(f"the URL of a server has no query or fragment, got {url!r}; {expected}")
    try:
        httpx.URL(url)
    except httpx.InvalidURL as error:
        raise BadArgumentError(f"no server is named by {url!r}: {error}; {expected}") from error
    return parts


def _proxy_to(scheme: str, host: str, port: int | None) -> str | None:
    if _is_loopback(host) or proxy_bypass(f"{host}:{port}" if port else host):
        return None
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    names = f"{scheme.upper()}_PROXY or ALL_PROXY"
    try:
        parts = urlsplit(proxy)
        usable = parts.hostname and (parts.port or 1) and (parts.username is None) == (parts.password is None)
    except ValueError:
        usable = False
    if not usable or parts.path not in ("", "/") or parts.query or not proxy.isprintable():
        raise UnreachableError(f"{names} names a proxy by no usable URL; expected http://host:port")
    kind = parts.scheme.lower()
    if kind.startswith("socks"):
        missing = [name.replace("_", "-") for name in _SOCKS_NEEDS if find_spec(name) is None]
        if missing:
            raise UnreachableError(
                f"{names} names a SOCKS proxy, which needs {' and '.join(missing)}: "
                f"pip install {' '.join(missing)}, or set NO_PROXY={host} to go without the proxy"
            )
    elif kind not in ("http", "https"):
        raise UnreachableError(f"{names} names a proxy of the kind {kind!r}; expected http, https or socks5")
    return proxy


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(verify: Verify) -> ssl.SSLContext:
    if isinstance(verify, ssl.SSLContext):
        return verify
    if isinstance(verify, bool):
        return httpx.create_ssl_context(verify=verify)
    path = Path(verify).expanduser()
    try:
        return ssl.create_default_context(cafile=str(path))
    except OSError as error:  # ssl's are too
        reason = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise BadArgumentError(f"cannot read the authorities of verify={str(path)!r}: {reason}") from error
