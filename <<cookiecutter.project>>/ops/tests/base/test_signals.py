"""Signals that ask a command to end are one thing, and can be held off."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from ops.base import signals

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_each_of_them_interrupts(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_DFL)
    signals.interrupt_on_ending()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals.interrupt_on_ending()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler


def test_only_those_that_are_named_are_held_off_and_only_for_a_while() -> None:
    signals.interrupt_on_ending()
    with signals.ignored(signal.SIGHUP):
        os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    assert signal.getsignal(signal.SIGHUP) is signal.default_int_handler


def test_nothing_disturbs_an_undo() -> None:
    signals.interrupt_on_ending()
    with signals.undisturbed():
        for number in ENDING:
            os.kill(os.getpid(), number)
    assert all(signal.getsignal(number) is signal.default_int_handler for number in ENDING)


def test_in_another_thread_nothing_needs_to_be_held_off() -> None:
    ran = []

    def work() -> None:
        with signals.undisturbed():
            ran.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ran == [before]
