"""What stands before an app of this server: every request goes through it first."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from pyrf.serve.address import Forwarded, Proxies
from pyrf.serve.envelope import REQUEST_ID, Envelope
from pyrf.serve.errors import Faults
from pyrf.serve.metrics import Metrics
from pyrf.serve.prefix import Prefixed
from pyrf.serve.security import Guard
from pyrf.serve.settings import ServeSettings


def put_before(app: FastAPI, settings: ServeSettings, metrics: Metrics) -> None:
    """Guard an app, and tell it where its requests come from; its server reads both from `app.state`."""
    app.state.settings, app.state.metrics = settings, metrics
    app.add_middleware(Faults)
    app.add_middleware(Guard, settings=settings, metrics=metrics)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Retry-After", REQUEST_ID, "Location", "ETag", "Link", "Accept-Patch"],
        )
    app.add_middleware(Envelope)
    app.add_middleware(Prefixed, root_path=settings.root_path)
    app.add_middleware(Forwarded, proxies=Proxies(settings.trusted_proxies))
