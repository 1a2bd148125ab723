"""Who may see anything at all: this machine's names, the session's key, posts from the app's own pages."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from tunewell.hosts import hosts_for
from tunewell.ui.app import create_app
from tunewell.ui.places import Place

from .conftest import BASE, TOKEN


@pytest.fixture
def stranger(runs):
    return TestClient(create_app(Place(runs), token=TOKEN), base_url=BASE)


def test_without_the_key_there_is_nothing_to_see(stranger):
    for address in ("/", "/run?at=a", "/static/ui.css", "/?token=wrong", "/?token=", "/?token=%ff"):
        answer = stranger.get(address)
        assert answer.status_code == 403
        assert "tunewell ui" in answer.text
    assert stranger.get("/", headers={"cookie": "tunewell-8765=wrong"}).status_code == 403
    assert stranger.get("/", headers={"cookie": f"tunewell-9999={TOKEN}"}).status_code == 403  # another app's session


def test_the_key_becomes_a_cookie_and_leaves_the_address(stranger):
    answer = stranger.get(f"/?token={TOKEN}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "HttpOnly; SameSite=Strict" in answer.headers["set-cookie"]
    assert stranger.get("/").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:1", "localhost.:1", "", "10.0.0.1:1"])
def test_other_names_are_refused(client, host):
    assert client.get("/", headers={"host": host}).status_code == 421


def test_addresses_and_names_when_bound_to_all():
    everywhere = hosts_for("0.0.0.0")
    assert everywhere.known("192.168.1.7:80")
    assert everywhere.known("[fe80::1]:80")
    assert not everywhere.known("evil.example:80")
    assert hosts_for("192.168.1.7").known("192.168.1.7")
    assert not hosts_for("127.0.0.1").known("192.168.1.7")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:9999"}, {"origin": ""},
        {"origin": BASE, "sec-fetch-site": "cross-site"}, {"origin": BASE, "sec-fetch-site": "same-site"},
    ],
)  # fmt: skip
def test_posts_of_other_pages_are_refused(client, headers):
    assert client.post("/nope", headers=headers).status_code == 403
    assert client.post("/nope", headers={"origin": BASE}).status_code == 404


def test_headers_on_every_answer(client, stranger):
    for answer in (client.get("/"), client.get("/nope"), client.get("/static/ui.js"), stranger.get("/")):
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
