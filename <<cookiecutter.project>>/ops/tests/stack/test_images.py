"""Own images are tagged by what goes into them; a build is needed only when that tag is not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ops import engine
from ops.base import errors
from ops.base.errors import OpsError
from ops.stack import images
from ops.stack.images import OwnImage
from ops.stack.model import Service, Stack

OWN = OwnImage("web", "acme/web:current", "acme/web:0123456789ab")


@pytest.fixture
def build(tmp_path: Path) -> dict:
    """The `build` of a service."""
    (tmp_path / "Dockerfile").write_text("FROM x")
    return {"context": str(tmp_path), "args": {"SERVICE": "web"}, "target": "production"}


def test_the_content_tag(build: dict) -> None:
    def tag(**changes: object) -> str:
        return images.content_reference("host:5000/acme/web:current", {**build, **changes})

    assert tag().startswith("host:5000/acme/web:")
    assert len(tag().rpartition(":")[2]) == 12
    assert tag(secrets=[{"source": "ca_bundle"}]) == tag()
    assert images.content_reference("host:5000/acme/web:1", build) == tag()
    assert tag(target="dev") != tag()
    before = tag()
    Path(build["context"], "Dockerfile").write_text("FROM y")
    assert tag() != before


@pytest.mark.parametrize(
    ("reference", "name"),
    [("acme/web:1", "acme/web"), ("acme/web", "acme/web"), ("h:5000/web", "h:5000/web"), ("web:1", "web")],
)
def test_repository(reference: str, name: str) -> None:
    assert images.repository(reference) == name


@pytest.mark.parametrize(
    ("present", "build", "tag", "pull"),
    [
        ({}, 1, 0, ("nginx:1",)),
        ({"nginx:1": "n", OWN.reference: "a"}, 1, 0, ()),
        ({"nginx:1": "n", OWN.content: "a"}, 0, 1, ()),
        ({"nginx:1": "n", OWN.content: "a", OWN.reference: "b"}, 0, 1, ()),
        ({"nginx:1": "n", OWN.content: "a", OWN.reference: "a"}, 0, 0, ()),
    ],
)
def test_what_is_needed(make_stack, present, build: int, tag: int, pull) -> None:
    declared = make_stack(
        Service("web", OWN.reference, built=True), Service("nginx", "nginx:1", labels={"ops.part": "edge"})
    )
    found = images.needs(declared, [OWN], present)
    assert (len(found.build), len(found.tag), found.pull) == (build, tag, pull)
    assert bool(found) == bool(build or tag or pull)


def test_finished_images_are_pulled_not_built(env, build: dict) -> None:
    declared = Stack("x", {"web": Service("web", OWN.reference, built=True)}, {"services": {"web": {"build": build}}})
    assert [each.service for each in images.own_images(env, declared)] == ["web"]
    env.values["IMAGE_SOURCE"] = "pull"
    assert images.own_images(env, declared) == []
    assert images.needs(declared, [], {}).pull == (OWN.reference,)


def test_build_command_line_and_tags(env, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[list[str]] = []
    monkeypatch.setattr(engine, "logged", lambda argv, *_args, **_options: lines.append(argv) or 0)
    monkeypatch.setattr(engine, "docker", lambda *args, **_options: lines.append(list(args)))
    images.build(env, [OWN], print, newer_base=True)
    assert lines == [engine.compose_argv(env, "build", "--pull", "web"), ["tag", OWN.reference, OWN.content]]


def test_a_failed_build_shows_its_last_lines(env, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_argv, log: Path, _tick, **_options) -> int:
        log.write_text("step 1\nERROR: no such package\n")
        return 1

    monkeypatch.setattr(engine, "logged", failing)
    with pytest.raises(OpsError, match="The build of web failed:\n  step 1\n  ERROR: no such package") as caught:
        images.build(env, [OWN], print)
    assert caught.value.remedy == "What runs was not touched. All of the build's output: .state/dev/build.log"
    assert caught.value.code == errors.BUILD


def test_images_that_cannot_be_had(env, monkeypatch: pytest.MonkeyPatch) -> None:
    def pull(*args: str, **_options) -> engine.Completed:
        return engine.Completed(args, 0 if args[-1] == "nginx:1" else 1, "", "Error: no such host\n")

    monkeypatch.setattr(engine, "docker", pull)
    failed = images.pull(["nginx:1", "redis:8"], lambda _words: None)
    assert failed == {"redis:8": "Error: no such host"}
    assert images.reasons({"a": "x", "b": "y", "c": "x"}) == "  a, c: x\n  b: y"
    error = images.unavailable(env, failed)
    assert "redis:8: Error: no such host" in error.message
    assert "set REGISTRY_MIRROR in config/dev/.env" in error.remedy


# ── what is removed ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("names", "gone"),
    [
        (["acme/web:0123456789ab"], True),
        ([], True),
        (["acme/web:0123456789ab", "acme/web:prod"], False),
        (["acme/web:release-1"], False),
    ],
)
def test_only_what_nobody_names_or_keeps_is_outdated(names: list[str], gone: bool) -> None:
    image = {"Id": "sha256:1", "RepoTags": names}
    assert images.outdated([image], {"sha256:2"}) == ([names or ["sha256:1"]] if gone else [])
    assert images.outdated([image], {"sha256:1"}) == []


def test_pruning_looks_at_our_label_only(env, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[tuple[str, ...]] = []
    images_found = [
        {"Id": f"sha256:{number}", "RepoTags": [f"acme/{name}:0123456789ab"]}
        for number, name in enumerate(("old", "used", "taken", "kept"))
    ]

    def docker(*args: str, **_options) -> engine.Completed:
        lines.append(args)
        output = {"images": "sha256:0\nsha256:1\nsha256:0\n", "ps": "c1\n"}.get(args[0], "")
        if f"reference={env.project}/release/*" in args:
            output = "sha256:4\n"
        return engine.Completed(args, args[0] == "rmi" and args[1] != "acme/old:0123456789ab", output, "")

    def inspect(ids, kind="container") -> list[dict]:
        if ids == ["sha256:4"]:
            return [{"Id": "sha256:4", "RepoTags": ["acme-dev/release/blog:4", "ghost:5", "acme/x:1"]}]
        assert ids == (["sha256:0", "sha256:1"] if kind == "image" else ["c1"])
        return images_found if kind == "image" else [{"Image": "sha256:1"}]

    monkeypatch.setattr(engine, "docker", docker)
    monkeypatch.setattr(engine, "inspect", inspect)
    assert images.prune(env, {"sha256:3"}, ["ghost:6"]) == ["acme/old:0123456789ab"]
    assert "label=ops.project=acme-dev" in lines[0]
    assert [line for line in lines if line[0] == "rmi"] == [
        ("rmi", "acme/old:0123456789ab"),
        ("rmi", "acme/taken:0123456789ab"),
        ("rmi", "acme-dev/release/blog:4", "ghost:5"),
    ]


def test_after_a_failure_names_mean_what_runs(make_container, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[tuple[str, ...]] = []
    monkeypatch.setattr(engine, "docker", lambda *args: lines.append(args))
    web = make_container("web", image_id="sha256:old", image=OWN.reference)
    images.tag_back([OWN], [web, make_container("api")])
    images.tag_back([OWN], [replace(web, state="exited")])
    assert lines == [("tag", "sha256:old", OWN.reference)]


def test_a_name_that_only_the_failed_version_has_is_not_given_to_what_runs(make_container, monkeypatch) -> None:
    """Or the next deploy would take the old image for the new one, which it would never pull."""
    lines: list[tuple[str, ...]] = []
    monkeypatch.setattr(engine, "docker", lambda *args: lines.append(args))
    images.tag_back([images.OwnImage("blog", "ghost:6", "")], [make_container("blog", image="ghost:5")])
    assert lines == []


BLOG = Service("blog", "ghost:6")


def test_an_image_from_elsewhere_keeps_a_name_for_the_way_back(env, make_stack, monkeypatch) -> None:
    parts = (Service("nginx", "nginx:1", labels={"ops.part": "edge"}), Service("web", OWN.reference, built=True))
    declared = make_stack(BLOG, *parts)
    assert images.pulled(env, declared) == [images.OwnImage("blog", "ghost:6", "")]
    env.values["IMAGE_SOURCE"] = "pull"
    assert [each.service for each in images.pulled(env, declared)] == ["blog", "web"]
    lines: list[tuple[str, ...]] = []
    monkeypatch.setattr(engine, "docker", lambda *args: lines.append(args))
    images.keep(env, {"Blog": "sha256:0123456789abcdef"})
    assert lines == [("tag", "sha256:0123456789abcdef", "acme-dev/release/blog:0123456789ab")]


def test_an_image_by_digest_needs_no_other_name(monkeypatch) -> None:
    monkeypatch.setattr(engine, "docker", lambda *args: pytest.fail(str(args)))
    images.tag([("sha256:1", "ghost:6@sha256:abc")])
    assert images.repository("host:5000/a/ghost:6@sha256:abc") == images.repository("host:5000/a/ghost@sha256:abc")


@pytest.mark.parametrize(
    ("names", "gone"),
    [
        (["acme-dev/release/blog:0123456789ab", "ghost:5"], ["acme-dev/release/blog:0123456789ab", "ghost:5"]),
        # the name of another repository is somebody else's
        (["acme-dev/release/blog:0123456789ab", "mine:1"], ["acme-dev/release/blog:0123456789ab"]),
    ],
)
def test_what_no_release_needs_any_more_goes_with_its_name(names: list[str], gone: list[str]) -> None:
    image = {"Id": "sha256:1", "RepoTags": names}
    assert images.expired([image], {"sha256:2"}, "acme-dev/release/", {"ghost"}) == [gone]
    assert images.expired([image], {"sha256:1"}, "acme-dev/release/", {"ghost"}) == []


def test_progress_of_a_build_is_the_step_that_it_is_at() -> None:
    titles: dict[str, str] = {}
    assert images.step([], titles) == ""
    assert images.step(["#1 [internal] load build definition", "#1 DONE 0.0s"], titles) == (
        "[internal] load build definition"
    )
    lines = ["#12 [web production 5/7] RUN pip install", "#13 [api production 1/7] COPY . .", "#12 0.432 Collecting x"]
    assert images.step(lines, titles) == "[web production 5/7] RUN pip install"
    # Its title is further up than the lines that are looked at.
    assert images.step(["#13 CACHED", "no step"], titles) == "[api production 1/7] COPY . ."
    assert images.step(["#99 0.1 unheard of"], titles) == ""
