"""Images of ours in a registry."""

from __future__ import annotations

from typing import Any

import pytest

from ops import engine
from ops.base.errors import BUILD, USAGE, OpsError
from ops.engine.results import Completed
from ops.stack import registry
from ops.stack.images import OwnImage

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("reference", "host"),
    [
        ("registry.example.com/acme/web:1", "registry.example.com"),
        ("localhost/web", "localhost"),
        ("127.0.0.1:5000/acme/web:1", "127.0.0.1:5000"),
        ("acme/web:1", ""),
        ("web", ""),
    ],
)
def test_the_registry_of_a_reference(reference: str, host: str) -> None:
    assert registry.host(reference) == host


def test_without_a_registry_or_an_image_there_is_nothing_to_push(env) -> None:
    for own, words in (([], "builds no image"), ([OwnImage("web", "acme/web:1", "acme/web:2")], "names no registry")):
        with pytest.raises(OpsError, match=words) as caught:
            registry.refuse(env, own)
        assert caught.value.code == USAGE


def test_the_digest_of_what_was_pushed(monkeypatch: pytest.MonkeyPatch) -> None:
    said = f"The push refers to repository [r.io/web]\n1: digest: {DIGEST} size: 528\n"
    monkeypatch.setattr(engine, "docker", lambda *_argv, **_options: Completed((), 0, said, ""))
    assert registry.push(["r.io/web:1"], lambda _words: None) == {"r.io/web:1": DIGEST}


def test_a_push_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "docker", lambda *_argv, **_options: Completed((), 1, "", "denied\n"))
    with pytest.raises(OpsError, match="r.io/web:1: denied") as caught:
        registry.push(["r.io/web:1"], lambda _words: None)
    assert caught.value.code == BUILD


def test_what_was_pushed_from_here_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"RepoTags": ["r.io/web:1"], "RepoDigests": [f"r.io/web@{DIGEST}"]}
    built = {"RepoTags": ["r.io/api:1"], "RepoDigests": []}
    there: dict[str, list[dict[str, Any]]] = {"r.io/web:1": [known], "r.io/api:1": [built]}
    monkeypatch.setattr(engine, "inspect", lambda ids, _kind: there.get(ids[0], []))
    # The registry itself is asked only for what is not here.
    monkeypatch.setattr(engine, "docker", lambda *argv, **_options: Completed((), "old" not in argv[-1], "", ""))
    own = [OwnImage(name, f"r.io/{name}:prod", f"r.io/{name}:1") for name in ("web", "api", "old", "gone")]
    assert [each.service for each in registry.missing(own)] == ["api", "gone"]
