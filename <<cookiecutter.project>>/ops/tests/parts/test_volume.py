"""What a volume of PostgreSQL holds, as it is read."""

from __future__ import annotations

from ops.parts.postgres import volume
from ops.parts.postgres.majors import Server
from ops.parts.postgres.volume import Change, Holding

SERVER = Server("postgres-primary", "acme_one", "999:999", "primary")


def test_an_empty_volume() -> None:
    assert volume.parse("") == Holding()
    assert (Holding().current, Holding().kept, Holding().reached) == (0, (), False)


def test_a_volume_after_two_upgrades_and_a_way_back() -> None:
    found = volume.parse(
        "database 17\ndatabase 9\ndatabase 18\nstandby 18\norigin 18 postgres:17.6\naside 18-20261125T120000Z\n"
    )
    assert found == Holding((9, 17, 18), frozenset({18}), {18: "postgres:17.6"}, ("18-20261125T120000Z",), None)
    assert found.current == 18
    assert found.kept == ("9/docker", "17/docker", ".aside/18-20261125T120000Z")


def test_a_change_under_way_is_read_as_it_was_written() -> None:
    change = Change("up", 18, "postgres:17.6", "hub/postgres:18.6")
    before = volume.parse(f"database 17\nbegun {change}\n")
    assert before.begun == change and not before.reached
    after = volume.parse(f"database 17\ndatabase 18\nbegun {change}\n")
    assert after.reached


def test_a_note_that_was_cut_short_is_none() -> None:
    # Killed between making the file and writing it.
    found = volume.parse("database 17\nbegun \norigin 18 \n")
    assert (found.begun, found.origins) == (None, {})


def test_the_volume_alone_is_mounted() -> None:
    line = volume.volume_argv(SERVER, "postgres:17", "true", "a b")
    assert line.count("--volume") == 1 and "acme_one:/var/lib/postgresql" in line
    assert line[line.index("--network") + 1] == "none"
    assert line[-4:] == ["-euc", "true", "bash", "a b"]
