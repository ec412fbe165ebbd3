"""The proxy that leads to a service, by the variables of the environment."""

from __future__ import annotations

import os

import pytest

from duotrack_client.proxies import find_proxy
from duotrack_client.sockets import connect_options, connection_failed


@pytest.fixture(autouse=True)
def proxies(monkeypatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("http_proxy", "http://user:hunter2@proxy.test:3128")
    monkeypatch.setenv("https_proxy", "secure.test:3129")
    monkeypatch.setenv("no_proxy", "lab.test,10.0.0.7:8000")


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://far.test:8000/", "http://user:hunter2@proxy.test:3128"),
        ("ws://far.test:8000/v1/sessions/x/stream", "http://user:hunter2@proxy.test:3128"),
        ("https://far.test/", "http://secure.test:3129"),
        ("wss://far.test/v1/sessions/x/stream", "http://secure.test:3129"),
        ("http://lab.test:8000/", None),
        ("http://gpu.lab.test/", None),
        ("http://10.0.0.7:8000/", None),
        ("http://127.0.0.1:8000/", None),
        ("ws://127.0.0.2:8000/", None),
        ("http://[::1]:8000/", None),
        ("https://localhost/", None),
    ],
)
def test_requests_and_streams_go_one_way_and_none_to_this_machine(url: str, proxy: str | None) -> None:
    assert find_proxy(url) == proxy
    assert connect_options(url, None, msgpack=False)["proxy"] == proxy


def test_a_proxy_for_all_is_taken_where_there_is_no_other(monkeypatch) -> None:
    monkeypatch.setenv("all_proxy", "http://all.test:1")
    assert find_proxy("https://far.test/") == "http://secure.test:3129"
    monkeypatch.delenv("https_proxy")
    assert find_proxy("https://far.test/") == "http://all.test:1"
    monkeypatch.delenv("all_proxy")
    assert find_proxy("https://far.test/") is None


def test_what_fails_through_a_proxy_names_it_and_not_its_password() -> None:
    error = connection_failed("http://far.test:8000/", OSError("no route"))
    assert "at http://far.test:8000/ through the proxy http://proxy.test:3128: no route" in str(error)
    assert "proxy" not in str(connection_failed("http://127.0.0.1:8000/", OSError("no route")))
