"""Rotation: what is asked for, where an interrupted one continues, and in which order the steps are taken."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ops import engine
from ops.base.errors import OpsError
from ops.parts import credentials
from ops.parts.credentials import Credential
from ops.secrets import definitions, files, make
from ops.secrets.catalogue import BY_NAME, CATALOGUE, Secret
from ops.secrets.pending import pending
from ops.security import rotate
from ops.security.rotate import Rotation
from ops.stack.model import Mount, Service
from ops.stack.owned import Owned, Role

STRIPE = Secret("STRIPE_KEY", "payments", ("shop",), "given by Stripe", length=0)
KEPT = "KIBANA_ENCRYPTION_KEY_PREVIOUS"


def path(env, name: str) -> Path:
    return env.secrets_dir / name


@pytest.fixture
def made(env):
    """The secrets of dev, and RabbitMQ's users."""
    source = env.project_dir / definitions.SOURCE
    source.parent.mkdir(parents=True)
    source.write_text('{"users": [{"name": "admin", "password_secret": "RABBITMQ_PASSWORD", "tags": []}]}')
    make.init(env, None)
    return env


# ── what to rotate ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_several_are_separated_by_commas(env) -> None:
    found = rotate.chosen(env, "PATRONI_PASSWORD,REDIS_PASSWORD,PATRONI_PASSWORD", BY_NAME)
    assert [each.name for each in found] == ["PATRONI_PASSWORD", "REDIS_PASSWORD"]


def test_all_are_those_that_can_be_generated(env) -> None:
    assert rotate.chosen(env, "--all", BY_NAME) == [each for each in CATALOGUE if each.length]


@pytest.mark.parametrize("names", ["", ",", "REDIS", "PATRONI_PASSWORD,redis_password"])
def test_an_unknown_name_is_refused_with_those_that_exist(env, names: str) -> None:
    with pytest.raises(OpsError, match="is not a secret of dev") as caught:
        rotate.chosen(env, names, BY_NAME)
    assert caught.value.code == 2
    assert "REDIS_PASSWORD" in caught.value.remedy


def test_a_value_that_somebody_else_gives_is_typed(env) -> None:
    assert rotate.new_value(STRIPE, (), lambda _: "sk_live_51HqXk2eZvKYlo2C") == ("sk_live_51HqXk2eZvKYlo2C")


@pytest.mark.parametrize("value", ["", "abc", " sk_live_51HqXk2eZvKYlo2C", "changeme-changeme-changeme"])
def test_a_typed_value_that_is_unfit_is_refused(env, value: str) -> None:
    with pytest.raises(OpsError, match="STRIPE_KEY cannot be used"):
        rotate.new_value(STRIPE, (), lambda _: value)


def test_the_kept_key_is_emptied_without_a_question(env) -> None:
    def nobody(_prompt: str) -> str:
        raise AssertionError

    assert rotate.new_value(BY_NAME[KEPT], {KEPT}, nobody) == ""


def test_without_a_terminal_the_value_comes_from_standard_input(monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("first\r\nsecond\n"))
    assert [rotate.given(STRIPE), rotate.given(STRIPE)] == ["first", "second"]
    with pytest.raises(OpsError, match="no terminal"):
        rotate.given(STRIPE)


PRIVATE_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r\nZXk=\n-----END OPENSSH PRIVATE KEY-----"


def test_a_private_key_comes_with_all_its_lines_from_standard_input(monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PRIVATE_KEY}\nnext\n"))
    key = BY_NAME["BACKUP_SSH_KEY"]
    assert rotate.new_value(key, (), rotate.given) == PRIVATE_KEY
    assert rotate.given(STRIPE) == "next"
    with pytest.raises(OpsError, match="no terminal"):
        rotate.given(key)


def test_at_a_terminal_a_private_key_comes_from_a_file(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    (tmp_path / "id").write_text(f"{PRIVATE_KEY}\n")
    monkeypatch.setattr("builtins.input", lambda _: f" {tmp_path}/id ")
    assert rotate.given(BY_NAME["BACKUP_SSH_KEY"]) == PRIVATE_KEY
    monkeypatch.setattr("builtins.input", lambda _: f"{tmp_path}/none")
    with pytest.raises(OpsError, match="none cannot be read: No such file"):
        rotate.given(BY_NAME["BACKUP_SSH_KEY"])


# ── where an interrupted one continues ────────────────────────────────────────────────────────────────────────────────


def begin(env, name: str = "REDIS_PASSWORD", value: str = "n" * 43) -> Rotation:
    return rotate.begin(env, BY_NAME[name], Credential(()), value)


def test_it_begins_with_both_values_in_files(made) -> None:
    old = files.read(made, "REDIS_PASSWORD")
    begun = begin(made)
    assert (begun.old, begun.new) == (old, "n" * 43)
    assert pending(made, "REDIS_PASSWORD") == {".next": "n" * 43, ".previous": old}
    assert {path(made, f"REDIS_PASSWORD{suffix}").stat().st_mode & 0o777 for suffix in (".next", ".previous")} == {
        0o444
    }
    assert files.read(made, "REDIS_PASSWORD") == old


def test_the_second_run_keeps_the_new_value_of_the_first(made) -> None:
    first = begin(made)
    assert begin(made, value="x" * 43) == first


def test_killed_between_the_two_files(made) -> None:
    old = files.read(made, "REDIS_PASSWORD")
    files.publish_new(path(made, "REDIS_PASSWORD.next"), b"n" * 43)
    begun = begin(made, value="x" * 43)
    assert (begun.old, begun.new) == (old, "n" * 43)


def test_killed_after_the_file_was_rewritten(made) -> None:
    first = begin(made)
    files.rewrite(path(made, "REDIS_PASSWORD"), first.new.encode())
    assert begin(made, value="x" * 43) == first


def test_killed_between_removing_the_two_files(made) -> None:
    first = begin(made)
    files.rewrite(path(made, "REDIS_PASSWORD"), first.new.encode())
    path(made, "REDIS_PASSWORD.next").unlink()
    assert begin(made, value="x" * 43) == first


# ── files that containers mount ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("content", ["n" * 43, "short", "", "longer " * 20])
def test_a_file_is_rewritten_in_place(made, content: str) -> None:
    """A container has the inode mounted: a new file would never be seen."""
    target = path(made, "REDIS_PASSWORD")
    before = target.stat().st_ino
    files.rewrite(target, content.encode())
    assert (target.stat().st_ino, target.read_text(), target.stat().st_mode & 0o777) == (before, content, 0o444)


def test_a_reader_never_sees_half_of_a_shorter_value(made, monkeypatch) -> None:
    """Killed between the write and the cut, the file holds the new value and line breaks, which readers strip."""
    target = path(made, "REDIS_PASSWORD")

    class Killed(Exception):
        pass

    def killed(_descriptor: int) -> None:
        raise Killed

    monkeypatch.setattr("os.fsync", killed)
    opened = Path.open

    def without_truncate(self, *arguments, **options):
        file = opened(self, *arguments, **options)
        return _NoTruncate(file) if self == target and "+" in arguments[0] else file

    monkeypatch.setattr(Path, "open", without_truncate)
    with pytest.raises(Killed):
        files.rewrite(target, b"short")
    monkeypatch.undo()
    assert target.stat().st_size == 43
    assert files.read(made, "REDIS_PASSWORD") == "short"


class _NoTruncate:
    """A file that is never cut."""

    def __init__(self, file) -> None:
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_args) -> None:
        self.file.close()

    def fileno(self) -> int:
        return self.file.fileno()

    def write(self, content: bytes) -> int:
        return self.file.write(content)

    def truncate(self, _size: int) -> None:
        pass


# ── the order of the steps ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Recorded(Credential):
    """A part that notes what is asked of it, and accepts what it was told to."""

    steps: list[str] = field(default_factory=list)
    accepted: set[str] = field(default_factory=set)

    def both(self, new: str) -> None:
        self.steps.append("both")
        self.accepted.add(new)

    def switch(self, new: str) -> None:
        self.steps.append("switch")
        self.accepted.add(new)

    def only(self, new: str) -> None:
        self.steps.append("only")
        self.accepted.intersection_update({new})

    def accepts(self, value: str) -> dict[str, bool]:
        return {"redis-primary": value in self.accepted}


class Held:
    def check(self) -> None:
        pass


class Work:
    timeout = 1.0
    held = Held()
    doing = ""
    touched = False

    def __init__(self, env) -> None:
        self.env = env


@pytest.fixture
def rotating(made, make_container, make_stack, monkeypatch):
    """A rotation of REDIS_PASSWORD, and what it did in order; `replaced` stands for the rollout."""
    holder = make_container("redis-primary")
    part = Recorded([holder], accepted={files.read(made, "REDIS_PASSWORD")})
    mount = Mount(path(made, "REDIS_PASSWORD"), "/run/secrets/REDIS_PASSWORD")
    stack = make_stack(Service("redis-primary", "", mounts=(mount,)), Service("api", "", built=True, mounts=(mount,)))
    monkeypatch.setattr(engine, "containers", lambda _env: [holder, make_container("api")])
    monkeypatch.setattr(rotate, "_mounted_digest", lambda _container, _name: "")
    run = rotate._Rotating(Work(made), rotate.Source(stack, None), [])

    def replace(names) -> None:
        part.steps.append(f"replaced the readers of {', '.join(sorted(names))}")
        assert files.read(made, "REDIS_PASSWORD") == "n" * 43

    monkeypatch.setattr(run, "_replace_readers", replace)

    def go(**changes):
        begun = rotate.begin(made, BY_NAME["REDIS_PASSWORD"], Credential(()), "n" * 43)
        run.rotations = [Rotation(begun.secret, begun.old, begun.new, changes.get("part", part))]
        run.run()

    return go, part


def test_the_old_value_is_refused_only_after_the_readers_were_replaced(rotating, made) -> None:
    go, part = rotating
    go()
    assert part.steps == ["both", "switch", "replaced the readers of REDIS_PASSWORD", "only"]
    assert part.accepted == {"n" * 43}
    assert pending(made, "REDIS_PASSWORD") == {}


def test_a_part_that_still_accepts_the_old_value_is_an_error(rotating, made) -> None:
    go, part = rotating

    class Lax(Recorded):
        def only(self, new: str) -> None:
            pass

    with pytest.raises(OpsError, match="redis-primary still accepts the old value of REDIS_PASSWORD"):
        go(part=Lax(part.holders, accepted={files.read(made, "REDIS_PASSWORD")}))
    assert set(pending(made, "REDIS_PASSWORD")) == {".next", ".previous"}


def test_a_part_that_refuses_the_new_value_is_an_error(rotating, made) -> None:
    go, part = rotating

    class Deaf(Recorded):
        def accepts(self, value: str) -> dict[str, bool]:
            return {"redis-primary": False}

    with pytest.raises(OpsError, match="redis-primary refuses the new value of REDIS_PASSWORD") as caught:
        go(part=Deaf(part.holders))
    assert "invoke secret-rotate REDIS_PASSWORD --env dev" in caught.value.remedy


@pytest.mark.parametrize("step", ["both", "switch", "only"])
def test_a_run_after_a_failure_at_any_step_finishes(rotating, made, monkeypatch, step: str) -> None:
    go, part = rotating
    old = files.read(made, "REDIS_PASSWORD")
    with monkeypatch.context() as patch:

        def fail(_self, _new: str) -> None:
            raise KeyboardInterrupt

        patch.setattr(Recorded, step, fail)
        with pytest.raises(KeyboardInterrupt):
            go()
    assert set(pending(made, "REDIS_PASSWORD")) == {".next", ".previous"}
    go()
    assert part.accepted == {"n" * 43}
    assert old not in part.accepted
    assert pending(made, "REDIS_PASSWORD") == {}


# ── who keeps and who reads ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("secret", [each.name for each in CATALOGUE])
def test_every_secret_has_a_part_or_only_readers(made, secret: str) -> None:
    """Without containers a part has nothing to do, and says nothing."""
    part = credentials.of(made, [], secret, Owned())
    part.check()
    part.both("x")
    part.switch("x")
    part.only("x")
    assert part.accepts("x") == {}


def test_a_part_that_keeps_a_password_in_a_volume_must_run(made, make_container, make_stack) -> None:
    mount = Mount(path(made, "GRAFANA_PASSWORD"), "/run/secrets/GRAFANA_PASSWORD")
    stack = make_stack(Service("grafana", "", labels={"ops.tier": "monitoring"}, mounts=(mount,)), Service("web", ""))

    def refuse(secret: str, *services: str) -> None:
        found = [make_container(each) for each in services]
        rotate.refuse_unready(made, stack, found, {secret: credentials.of(made, found, secret, Owned())})

    with pytest.raises(OpsError, match="grafana is not running in dev"):
        refuse("GRAFANA_PASSWORD", "web")
    refuse("GRAFANA_PASSWORD", "grafana")
    # Redis keeps nothing: what starts later reads the file.
    refuse("REDIS_PASSWORD", "web")


def test_a_password_of_a_service_is_kept_by_the_database_and_not_by_who_reads_it(made, make_container, make_stack):
    stack = make_stack(Service("shop", ""), Service("postgres-primary", ""))
    owned = Owned(roles=(Role("shop", "SHOP_DB_PASSWORD", services=("shop",)),))
    found = [make_container("shop")]
    keeper = credentials.of(made, found, "SHOP_DB_PASSWORD", owned)
    with pytest.raises(OpsError, match="postgres-primary is not running in dev"):
        rotate.refuse_unready(made, stack, found, {"SHOP_DB_PASSWORD": keeper})


def test_replicas_are_those_declared_now() -> None:
    """Not those that run: a killed rollout leaves old and new containers beside each other."""
    released = Service("api", "acme/api:1", replicas=2)
    assert rotate.as_declared(released, Service("api", "acme/api:2", replicas=3)) == Service("api", "acme/api:1", 3)
    assert rotate.as_declared(released, None) == released


def test_files_that_change(made) -> None:
    assert rotate.files_of([BY_NAME["KIBANA_ENCRYPTION_KEY"]]) == {"KIBANA_ENCRYPTION_KEY", KEPT}
    assert rotate.files_of([BY_NAME["REDIS_PASSWORD"]]) == {"REDIS_PASSWORD"}
