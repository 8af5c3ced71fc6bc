"""The gate over recorded sequences of container states."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ops import engine
from ops.base import console
from ops.base.errors import CRASHED, NOT_READY, OUT_OF_MEMORY
from ops.rollout import gate
from ops.rollout.gate import FAILED, READY, SECOND_CHANCE_SECONDS, SETTLE_SECONDS, STEADY_SECONDS, WAITING, Gate
from ops.stack.model import Service

WEB = Service("web", "acme/web", replicas=2, has_health=True, probe_seconds=8, depends_on=("api",))
API = Service("api", "acme/api", has_health=True, probe_seconds=60)
PLAIN = Service("plain", "plain:1")


@pytest.fixture
def play():
    """Runs a gate over looks (second, containers, still working) and gives the verdicts."""

    def run(judge: Gate, *looks):
        return [judge.observe(containers, at, working=working) for at, containers, working in looks]

    return run


def test_from_nothing_to_healthy(play, make_container) -> None:
    starting = [make_container("web", 1, health="starting"), make_container("web", 2, health="starting")]
    half = [make_container("web", 1), make_container("web", 2, health="starting")]
    verdicts = play(
        Gate({"web": WEB}),
        (0, [], True),
        (1, starting, True),
        (2, half, False),
        (5, [make_container("web", 1), make_container("web", 2)], False),
    )
    assert [each.status for each in verdicts] == [WAITING, WAITING, WAITING, READY]
    assert [(each.rows[0].state, each.rows[0].ready) for each in verdicts] == [
        ("waiting", 0),
        ("starting", 0),
        ("starting", 1),
        ("healthy", 2),
    ]
    assert verdicts[-1].rows[0].since == 5


def test_a_replacement_beside_the_old_one(play, make_container) -> None:
    old, new = make_container("api", id="old"), make_container("api", id="new", state="created", health="")
    verdict = play(Gate({"api": API}, before=[old]), (0, [old, new], True))[0]
    assert verdict.rows[0].state == "replacing"


def test_what_was_ready_before_took_no_time(play, make_container) -> None:
    old = [make_container("api")]
    verdict = play(Gate({"api": API}, before=old), (0, old, True), (5, old, False))[-1]
    assert (verdict.status, verdict.rows[0].since) == (READY, 0)


def test_healthy_is_not_ready_while_compose_still_works(play, make_container) -> None:
    both = [make_container("web", 1), make_container("web", 2)]
    verdicts = play(Gate({"web": WEB}, before=both), (0, both, True), (1, both, False))
    assert [each.status for each in verdicts] == [WAITING, READY]


def test_one_container_too_many_is_waited_for(play, make_container) -> None:
    three = [make_container("web", number) for number in (1, 2, 3)]
    assert play(Gate({"web": WEB}), (0, three, False))[0].status == WAITING


def test_an_old_container_may_stop_while_compose_replaces_it(play, make_container) -> None:
    old = [make_container("api", 1, id="old")]
    verdicts = play(
        Gate({"api": API}, before=old),
        (0, [make_container("api", 1, id="old", state="exited", health="", exit_code=0)], True),
        (2, [make_container("api", 1, id="new")], False),
    )
    assert [each.status for each in verdicts] == [WAITING, READY]


def test_a_new_container_that_exits_fails_at_once(play, make_container) -> None:
    dead = make_container("api", 1, state="exited", health="", exit_code=3)
    verdict = play(Gate({"api": API}), (0, [dead], True))[0]
    assert (verdict.status, verdict.culprit, verdict.reason) == (FAILED, "api", "stopped with exit code 3")
    assert verdict.code == CRASHED


def test_out_of_memory_is_named(play, make_container) -> None:
    dead = make_container("api", 1, state="exited", health="", exit_code=137, oom_killed=True)
    verdict = play(Gate({"api": API}), (0, [dead], True))[0]
    assert verdict.reason == "stopped: out of memory, its limit is too low"
    assert verdict.code == OUT_OF_MEMORY


def test_out_of_memory_is_named_although_the_first_process_runs_on(play, make_container) -> None:
    """The dev image keeps a service that ended; what its probe says, "connection refused", names no cause."""
    sick = [make_container("api", health="unhealthy", oom_killed=True)]
    verdict = play(Gate({"api": API}), (0, sick, False), (SECOND_CHANCE_SECONDS + 1, sick, False))[-1]
    assert verdict.reason == "is unhealthy: out of memory, its limit is too low"
    assert verdict.code == OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("oom_killed", "words", "code"),
    [
        (True, "(it is starting): out of memory, its limit is too low", OUT_OF_MEMORY),
        (False, "(it is starting)", NOT_READY),
    ],
)
def test_out_of_memory_is_named_when_time_is_up(play, make_container, oom_killed, words, code) -> None:
    gate, late = Gate({"api": API}), [make_container("api", health="starting", oom_killed=oom_killed)]
    verdict = gate.late(late, gate.observe(late, 0), 180)
    assert verdict.reason == f"was not healthy within 180 s {words}"
    assert verdict.code == code


def test_restarts_are_counted_from_the_beginning_of_the_deploy(play, make_container) -> None:
    before = [make_container("api", restarts=5)]
    verdicts = play(
        Gate({"api": API}, before=before),
        (0, [make_container("api", restarts=5, health="starting")], False),
        (1, [make_container("api", restarts=7, state="restarting", health="")], False),
        (2, [make_container("api", restarts=8, state="restarting", health="", exit_code=1)], False),
    )
    assert [each.status for each in verdicts] == [WAITING, WAITING, FAILED]
    assert verdicts[-1].reason == "restarted 3 times with exit code 1"


def test_where_none_is_allowed_one_restart_is_one_too_many(play, make_container) -> None:
    verdict = play(Gate({"api": API}, restarts_allowed=0), (0, [make_container("api", restarts=1)], False))[0]
    assert (verdict.status, verdict.reason, verdict.code) == (FAILED, "restarted once", CRASHED)


def test_unhealthy_gets_one_more_probe(play, make_container) -> None:
    sick = [make_container("web", 1, health="unhealthy"), make_container("web", 2)]
    verdicts = play(Gate({"web": WEB}), (0, sick, False), (8, sick, False), (8.1, sick, False))
    assert [each.status for each in verdicts] == [WAITING, WAITING, FAILED]
    assert verdicts[-1].reason == "is unhealthy"
    assert verdicts[-1].container == sick[0]


def test_but_not_more_patience_than_that(play, make_container) -> None:
    sick = [make_container("api", health="unhealthy")]
    verdicts = play(Gate({"api": API}), (0, sick, False), (SECOND_CHANCE_SECONDS + 1, sick, False))
    assert verdicts[-1].status == FAILED


def test_a_recovery_starts_the_count_again(play, make_container) -> None:
    sick, well = [make_container("api", health="unhealthy")], [make_container("api", health="starting")]
    verdicts = play(Gate({"api": API}), (0, sick, False), (10, well, False), (11, sick, False), (20, sick, False))
    assert {each.status for each in verdicts} == {WAITING}


def test_without_a_health_check_it_must_run_for_a_while(play, make_container) -> None:
    container = [make_container("plain", health="")]
    # On a machine that has been up for long: since the deploy began, and not since then.
    began = 100_000
    looks = ((began + seconds, container, False) for seconds in (0, STEADY_SECONDS - 0.1, STEADY_SECONDS))
    assert [each.status for each in play(Gate({"plain": PLAIN}), *looks)] == [WAITING, WAITING, READY]
    assert play(Gate({"plain": PLAIN}, before=container), (0, container, False))[0].status == READY


def test_containers_that_do_not_come(play, make_container) -> None:
    one = [make_container("web", 1)]
    verdicts = play(Gate({"web": WEB}), (0, one, True), (60, one, False), (60 + SETTLE_SECONDS, one, False))
    assert [each.status for each in verdicts] == [WAITING, WAITING, FAILED]
    assert verdicts[-1].reason == "has 1 of 2 containers"


def test_created_but_never_started(play, make_container) -> None:
    stuck = [make_container("api", state="created", health="", error="port is taken")]
    verdicts = play(Gate({"api": API}), (0, stuck, True), (1, stuck, False), (1 + SETTLE_SECONDS, stuck, False))
    assert [each.status for each in verdicts] == [WAITING, WAITING, FAILED]
    assert verdicts[-1].reason == "was created but did not start: port is taken"


def test_the_cause_is_blamed_not_its_victim(play, make_container) -> None:
    containers = [
        make_container("web", 1, state="exited", health=""),
        make_container("web", 2, state="exited", health=""),
        make_container("api", state="exited", health=""),
    ]
    assert play(Gate({"web": WEB, "api": API}), (0, containers, True))[0].culprit == "api"


def test_when_time_is_up(make_container) -> None:
    judge = Gate({"web": WEB, "api": API})
    containers = [make_container("web", 1), make_container("api", health="starting", health_log=("no database",))]
    verdict = judge.late(containers, judge.observe(containers, 0), 180)
    assert (verdict.status, verdict.culprit) == (FAILED, "api")
    assert verdict.reason == "was not healthy within 180 s (it is starting)"
    assert verdict.container == containers[1]


# ── watching and telling ──────────────────────────────────────────────────────────────────────────────────────────────


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Work:
    """Compose, done after some looks."""

    def __init__(self, looks: int, code: int = 0) -> None:
        self.codes: Iterator[int | None] = iter([None] * looks + [code] * 1000)

    def poll(self) -> int | None:
        return next(self.codes)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch):
    """`gate.watch` on a clock of its own, without a terminal."""
    monkeypatch.setattr(console, "is_terminal", lambda stream=None: False)
    clock = Clock()

    def run(judge: Gate, look, timeout: float = 180, work=None, patient: bool = False):
        return gate.watch(judge, look, timeout, work, clock, clock.sleep, patient)

    run.clock = clock
    return run


def test_watching_prints_each_change_once(watch, make_container, capsys) -> None:
    looks = iter([[], [make_container("api", health="starting")], [make_container("api", health="starting")]])
    verdict = watch(Gate({"api": API}), lambda: next(looks, [make_container("api")]), work=Work(1))
    assert verdict.status == READY
    assert [line.split(maxsplit=2)[2] for line in capsys.readouterr().out.splitlines()] == [
        "api                      waiting 0/1",
        "api                      starting 0/1",
        "api                      healthy 1/1",
    ]


def test_what_was_well_before_is_not_news(watch, make_container, capsys) -> None:
    containers = [make_container("api")]
    assert watch(Gate({"api": API}, before=containers), lambda: containers).status == READY
    assert capsys.readouterr().out == ""


def test_watching_gives_up_in_time(watch, make_container) -> None:
    verdict = watch(Gate({"api": API}), lambda: [make_container("api", health="starting")], timeout=20)
    assert (verdict.status, verdict.culprit) == (FAILED, "api")
    assert watch.clock.now == pytest.approx(21, abs=1)


def test_a_compose_that_fails_ends_the_watch(watch) -> None:
    assert watch(Gate({"api": API}), list, work=Work(2, code=1)).status == WAITING
    assert watch.clock.now == pytest.approx(2)


@pytest.mark.parametrize(("patient", "looks"), [(False, 0), (True, 3)])
def test_whoever_is_patient_lets_compose_finish_although_one_has_failed(
    watch, make_container, patient: bool, looks: int
) -> None:
    dead = make_container("api", state="exited", health="", exit_code=3)
    verdict = watch(Gate({"api": API}), lambda: [dead], work=Work(3), patient=patient)
    assert (verdict.status, watch.clock.now) == (FAILED, looks)


def test_patience_ends_with_the_time(watch, make_container) -> None:
    dead = make_container("api", state="exited", health="", exit_code=3)
    verdict = watch(Gate({"api": API}), lambda: [dead], timeout=20, work=Work(1000), patient=True)
    assert (verdict.status, watch.clock.now) == (FAILED, 21)


def test_the_live_table_has_a_clock_and_a_deadline() -> None:
    assert gate.rows_table([], "41 s of at most 180 s").title == "41 s of at most 180 s"


def test_the_reason_says_who_and_shows_probe_and_log(make_container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "logs", lambda _id, _lines: ["Traceback", "ConnectionError: redis"])
    probe = "".join(f"frame {number}\n" for number in range(100)) + "redis: refused\n"
    sick = make_container("api", health="unhealthy", health_log=("postgres: refused\n", probe))
    error = gate.explain(gate.Verdict(FAILED, (), "api", "is unhealthy", sick))
    assert error.message.splitlines() == [
        "api is unhealthy.",
        "Its last health check said:",
        *(f"  frame {number}" for number in (96, 97, 98, 99)),
        "  redis: refused",
        "The last lines of acme-dev-api-1:",
        "  Traceback",
        "  ConnectionError: redis",
    ]
    assert error.code == NOT_READY


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ('[emerg] 1#1: mkdir() "/var/lib/nginx/body" failed (30: Read-only file system)', "a tmpfs for each folder"),
        ('[emerg] 1#1: chown("/var/cache/nginx", 101) failed (1: Operation not permitted)', "cap_add: [CHOWN"),
        ("mkdir: permission denied", "DAC_OVERRIDE"),
    ],
)
def test_what_confines_a_container_is_named_with_what_loosens_it(log: str, words: str) -> None:
    (hint,) = gate.hints(log)
    assert words in hint
    assert gate.hints("password authentication failed") == []


def test_long_lines_keep_their_beginning_and_their_end() -> None:
    assert gate.shorten("short") == "short"
    long = gate.shorten(f"who{'x' * 5000}why")
    assert (long[:3], long[-3:]) == ("who", "why")
    assert len(long) == gate.LINE_LENGTH + 3
