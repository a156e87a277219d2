"""The streaming server: sessions over HTTP, WebSocket and WebRTC. Needs the `serve` extra."""

from importlib.util import find_spec

_NEEDS = (
    "fastapi",
    "fastapi_offline",
    "uvicorn",
    "websockets",
    "aiortc",
    "prometheus_client",
    "pydantic",
    "httpx",
)


def require_extra() -> None:
    """Refuse to go on without what serving needs beyond inference.

    Raises:
        ValueError: what is missing, and how it is installed.
    """
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        raise ValueError(f"serving needs {', '.join(missing)}: pip install 'pyrf[serve]'")


def require_ray() -> None:
    """Refuse to go on without Ray Serve.

    Raises:
        ValueError: what is missing, and how it is installed.
    """
    if find_spec("ray") is None:
        raise ValueError("--ray needs Ray Serve: pip install 'pyrf[ray]'")
