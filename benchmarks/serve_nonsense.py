"""Nonsense for a server, over WebSocket and HTTP; `serve_load.py` sends it and counts what comes of it."""

from __future__ import annotations

import asyncio
import json
import random
import string
from contextlib import suppress
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from pyrf.client import AsyncClient
from pyrf.reports.bench import PROMPT


def nonsense(rng: random.Random) -> str | bytes:
    """A message that a viewer should not send, or should not send like this."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        return "".join(rng.choices(string.printable, k=rng.randrange(200)))
    words = ("prompt", "pause", "resume", PROMPT)
    values: list[object] = [None, True, -1, 1e308, "", "x" * 3000, [], {}, *words]
    keys = ["type", "prompt", "ref", "recache", "x"]
    message = {key: rng.choice(values) for key in keys if rng.random() < 0.5}
    return json.dumps(message if kind == 2 else [message])


async def fuzz_websocket(client: AsyncClient, url: str, count: int) -> bool:
    """Send nonsense to a session: whether it lives, and shows frames."""
    rng = random.Random(0)
    session = await client.create_session(PROMPT)
    created = session.created
    path = f"{url.replace('http', 'ws')}/v1/sessions/{created.id}/ws?format=jpeg"
    headers = {"Authorization": f"Bearer {created.token}"}
    async with connect(path, additional_headers=headers, max_queue=None, compression=None) as connection:

        async def read() -> None:
            with suppress(ConnectionClosed):
                async for _ in connection:
                    pass

        reading = asyncio.create_task(read())
        for _ in range(count):
            await connection.send(nonsense(rng))
        await connection.close()
        await reading
    await session.resume()
    alive = (await anext(session)).header.frame >= 0
    await session.close()
    return alive


def fuzz_http(url: str, count: int) -> dict[str, int]:
    """Requests made up from the OpenAPI page: how many, and how many server errors."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json").exclude(path="/v1/videos")
    found = list(schema.get_all_operations())
    operations = [each.ok() for each in found if isinstance(each, Ok)]
    assert len(operations) == len(found)
    seen = {"requests": 0, "server_errors": 0}
    for operation in operations:

        @given(operation.as_strategy())
        @settings(
            max_examples=max(1, count // len(operations)),
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def send(case: schemathesis.Case[Any]) -> None:
            response = case.call()
            seen["requests"] += 1
            seen["server_errors"] += response.status_code in range(500, 503)
            if response.status_code == 201:
                created = response.json()
                headers = {"Authorization": f"Bearer {created['token']}"}
                httpx.delete(f"{url}/v1/sessions/{created['id']}", headers=headers)

        send()
    return seen
