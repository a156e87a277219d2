"""Whose request it is: the peer, unless a trusted proxy says who stands behind it."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrf.serve.address import Proxies, client_address
from pyrf.serve.settings import ServeSettings
from tests.support.running import PROMPT, Running


@pytest.mark.parametrize(
    ("hops", "client"),
    [
        ([], "10.0.0.5"),
        (["203.0.113.9"], "203.0.113.9"),
        (["6.6.6.6", "203.0.113.9"], "203.0.113.9"),  # the client wrote the first itself
        (["6.6.6.6", "203.0.113.9", "10.0.0.7"], "203.0.113.9"),
        (["10.0.0.8", "10.0.0.7"], "10.0.0.8"),
        (["203.0.113.9:4711"], "203.0.113.9"),
        (["[2001:db8::1]:4711"], "2001:db8::1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9", "::ffff:10.0.0.7"], "203.0.113.9"),
        (["fe80::1%eth0"], "fe80::1"),
        (["unknown"], "10.0.0.5"),
        (["203.0.113.9", "<script>", "10.0.0.7"], "10.0.0.7"),
        (["203.0.113.9", "10.0.0.256"], "10.0.0.5"),
    ],
)
def test_the_right_most_hop_that_is_no_proxy(hops: list[str], client: str) -> None:
    assert Proxies(["10.0.0.0/24"]).client("10.0.0.5", hops) == client


ADDRESSES = st.ip_addresses().map(str)


@given(written=st.lists(st.one_of(ADDRESSES, st.text(max_size=20))), client=ADDRESSES)
def test_what_a_client_writes_changes_nothing(written: list[str], client: str) -> None:
    proxies = Proxies(["10.0.0.5"])
    hops = [*written, client]  # the proxy adds who it heard it from
    if not proxies.trusts(client):
        expected = ip_address(client)
        assert proxies.client("10.0.0.5", hops) == str(getattr(expected, "ipv4_mapped", None) or expected)


@pytest.mark.parametrize(
    ("client", "key"),
    [
        (("203.0.113.9", 1), "203.0.113.9"),
        (("::ffff:203.0.113.9", 1), "203.0.113.9"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),  # all addresses of a subscriber count as one
        (("::1", 1), "::1"),
        (("testclient", 1), "testclient"),
        (None, "unix"),
    ],
)
def test_the_key_of_quotas(client: tuple[str, int] | None, key: str) -> None:
    assert client_address({"client": client}) == key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nginx", "named by its address or network, got 'nginx'"),
        ("*", "named by its address or network"),
        ("", "named by its address or network"),
        ("10.0.0.0/33", "named by its address or network"),
        ("0.0.0.0/0", "0.0.0.0/0 trusts everyone"),
        ("::/0", "::/0 trusts everyone"),
    ],
)
def test_proxies_that_cannot_be_trusted(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("*", r"\*")):
        ServeSettings(trusted_proxies=(text,))


def creates(server: Running, *forwarded: str) -> list[int]:
    """The replies to one new session for each value of X-Forwarded-For."""
    codes: list[int] = []
    for value in forwarded:
        headers = {"X-Forwarded-For": value, "Forwarded": f"for={value}"}
        response = server.http.post("/v1/sessions", json={"prompt": PROMPT}, headers=headers)
        codes.append(response.status_code)
        if response.status_code == 201:
            server.delete(response.json())
    return codes


def test_nobody_is_believed_by_accident(serve: Callable[..., Running]) -> None:
    """Not even who speaks from this machine."""
    assert creates(serve(creates_per_minute=1), "203.0.113.1", "203.0.113.2") == [201, 429]


def test_a_trusted_proxy_is_believed(serve: Callable[..., Running]) -> None:
    server = serve(creates_per_minute=1, trusted_proxies=("127.0.0.1",))
    assert creates(server, "203.0.113.1", "203.0.113.2", "6.6.6.6, 203.0.113.1") == [201, 201, 429]
    other = serve(creates_per_minute=1, trusted_proxies=("10.0.0.0/8",))
    assert creates(other, "203.0.113.1", "203.0.113.2") == [201, 429]
