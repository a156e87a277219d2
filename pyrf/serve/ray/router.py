"""Which replica a request of Ray Serve goes to: the one whose session it is, else the next with room."""

from __future__ import annotations

import itertools
import pickle
import re
from typing import Any

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
from ray.serve.request_router import PendingRequest, RunningReplica

_SESSION = re.compile(r"/v1/(?:admin/)?(?:sessions|videos)/([^/.]+)\.")


class SessionRouter(ConsistentHashRouter):  # type: ignore[misc]  # ray is not followed
    """Sends what belongs to a session to its replica, whose name the session's id begins with.

    New sessions go round the replicas that have room, by what each last said of itself. When a session's
    replica is gone, any other may say so (404, or 4404 over WebSocket).

    Of the base class only the loop that finds each request its own replica is used; the routers of Ray Serve
    that balance load hand a free replica to whichever request has waited longest.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._turns: dict[str, int] = {}
        self._clock = itertools.count(1)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Ranks of one replica each."""
        if pending_request is None or not candidate_replicas:
            return [candidate_replicas] if candidate_replicas else []
        pending_request.routing_context.should_backoff = True
        name = _replica_name(pending_request)
        own = [replica for replica in candidate_replicas if replica.replica_id.unique_id == name]
        if own:
            return [own]
        ranked = sorted(candidate_replicas, key=self._reluctance)
        self._turns[ranked[0].replica_id.unique_id] = next(self._clock)
        return [[replica] for replica in ranked]

    def _reluctance(self, replica: RunningReplica) -> tuple[bool, int]:
        return bool(replica.routing_stats.get("full")), self._turns.get(replica.replica_id.unique_id, 0)


def _replica_name(request: PendingRequest) -> str | None:
    """The replica that the path of an HTTP or WebSocket request names."""
    sent = request.args[0] if request.args else None
    if isinstance(sent, bytes):  # Ray's proxy pickled it, in this process
        sent = pickle.loads(sent)
    scope = getattr(sent, "asgi_scope", None)
    match = _SESSION.search(scope["path"]) if scope else None
    return match[1] if match else None
