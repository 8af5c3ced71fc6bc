"""The command line of logs, and what is refused."""

from __future__ import annotations

import pytest

from ops import engine
from ops.base.errors import USAGE, OpsError
from ops.commands import logs
from ops.stack import model
from ops.stack.model import Service


def test_logs_command_line(env) -> None:
    assert logs.logs_argv(env, ["api", "web"], follow=True, tail="50", since="10m") == engine.compose_argv(
        env, "logs", "--tail", "50", "--follow", "--since", "10m", "--no-color", "api", "web", all_profiles=True
    )
    assert logs.logs_argv(env, [], follow=False, tail="all", since="")[-4:] == [
        "logs",
        "--tail",
        "all",
        "--no-color",
    ]


def test_logs_of_nobody(env, make_stack, monkeypatch) -> None:
    monkeypatch.setattr(model, "load", lambda env, all_profiles: make_stack(Service("web", "x")))
    monkeypatch.setattr(engine, "containers", lambda env: [])
    with pytest.raises(OpsError, match='There is no service "wbe"') as caught:
        logs.logs(env, ["web", "wbe"])
    assert (caught.value.code, caught.value.remedy) == (USAGE, "There are: web.")
    with pytest.raises(OpsError, match="--tail must be a whole number"):
        logs.logs(env, tail="-5")


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ('{"level": "warn", "msg": "slow"}', "warning"),
        ('{"severity": "ERROR"}', "error"),
        ('{"level": 50, "msg": "pino"}', "error"),
        ('{"status": 200, "path": "/error"}', "info"),
        ("2026/11/26 20:00:00 [crit] 7#7: open() failed", "critical"),
        ("2026-11-26 20:00:00 UTC [12] FATAL:  password authentication failed", "critical"),
        ("level=warn msg=slow", "warning"),
        ('{"level": cut off', None),
        ('  File "app.py", line 3, in <module>', None),
        ("terrors and warnings", None),
        ("x" * 200 + " error", None),
    ],
)
def test_the_level_of_a_line(text: str, level: str | None) -> None:
    assert logs.rank_of(text) == (logs.LEVELS.index(level) if level else None)


LINES = [
    'web-1  | 2026-11-26T20:00:03Z {"level": "info", "msg": "c"}\n',
    "web-1  | 2026-11-26T20:00:04Z ERROR it broke\n",
    "web-1  | 2026-11-26T20:00:05Z   in line 3\n",
    'api-1  | 2026-11-26T20:00:01Z {"level": "warning", "msg": "a"}\n',
    "api-1  | 2026-11-26T20:00:02Z \n",
    'api-1  | 2026-11-26T20:00:06Z {"level": "info", "msg": "d"}\n',
    "api-1 exited with code 0\n",
]


def texts(level: str = "", grep: str = "") -> list[str]:
    return [line.text for line in logs.chosen(LINES, logs.wanted(level, grep))]


def test_lines_by_their_level_with_what_follows_them() -> None:
    assert texts("error") == ["ERROR it broke", "  in line 3"]
    assert texts("warning") == ["ERROR it broke", "  in line 3", '{"level": "warning", "msg": "a"}', ""]
    assert len(texts("debug")) == 6


def test_lines_by_their_text() -> None:
    assert texts(grep="BROKE|line [0-9]") == ["ERROR it broke", "  in line 3"]
    assert texts("critical", "broke") == []


def test_lines_of_several_containers_come_by_their_time() -> None:
    found = list(logs.chosen(LINES, logs.wanted(grep="msg|broke")))
    assert [line.time[17:19] for line in logs.ordered(found, None)] == ["01", "03", "04", "06"]
    assert [line.time[17:19] for line in logs.ordered(found, 1)] == ["04", "06"]


@pytest.mark.parametrize(
    ("options", "words"),
    [(("loud", ""), 'no level "loud"'), (("50", ""), 'no level "50"'), (("", "("), "no regular expression")],
)
def test_a_filter_that_cannot_be_meant(options: tuple[str, str], words: str) -> None:
    with pytest.raises(OpsError, match=words) as caught:
        logs.wanted(*options)
    assert caught.value.code == USAGE and caught.value.remedy


@pytest.mark.parametrize(("follow", "shown"), [(False, ["a | 3", "b | 4"]), (True, ["a | 1", "b | 4", "a | 3"])])
def test_the_last_lines_of_each_container_in_the_order_of_time_or_all_as_they_come(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, follow: bool, shown: list[str]
) -> None:
    monkeypatch.setattr(logs.console, "reader_is_gone", lambda: False)
    lines = [logs.Line(f"{name} | ", str(time), str(time)) for name, time in (("a", 1), ("b", 4), ("a", 3))]
    assert logs.show(iter(lines), follow, "1") is True
    assert capsys.readouterr().out.splitlines() == shown
