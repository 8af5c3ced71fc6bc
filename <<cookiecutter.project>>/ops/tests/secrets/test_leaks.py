"""Looking for the values of secrets where they do not belong."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from ops.secrets import leaks
from ops.secrets.leaks import Limits, Search

VALUE = "Vf3kQ9zLxT7bN2mR8wY5cH1"
OPS = Path(leaks.__file__).parents[2]


@pytest.mark.parametrize("value", ["p$$w%rd/ü\"'\\#-1234567", VALUE])
def test_every_spelling_of_a_value_is_found(value):
    texts = [value, json.dumps({"a": value}), f"redis://:{quote(value, safe='')}@h", value.replace("$", "$$")]
    texts += [
        base64.b64encode(f"{user}:{value}{rest}".encode()).decode() for user in ("a", "ab", "abc") for rest in ("", "!")
    ]
    texts += [base64.urlsafe_b64encode(f"x{value}".encode()).decode(), base64.b64encode(value.encode()).decode()]
    for text in texts:
        assert Search({"X": value}).in_text(text) == ["X"], text
    assert Search({"X": value}).in_text("something else") == []


def test_short_values_are_not_searched():
    assert Search({"X": "abc"}).in_text("abc") == []


@pytest.mark.parametrize("at", range(0, 40, 3))
def test_a_value_across_the_border_of_two_chunks(at):
    text = b"." * at + VALUE.encode() + b"." * 50
    chunks = [text[start : start + 20] for start in range(0, len(text), 20)]
    assert Search({"X": VALUE}).in_chunks(chunks, "f") == ["X"]


def test_a_binary_is_counted_not_searched():
    search = Search({"X": VALUE})
    assert search.in_chunks([b"\0" + VALUE.encode()], "f") == []
    assert search.left_out() == "1 binary file"


def test_the_rest_of_a_large_file_is_told():
    search = Search({"X": VALUE}, Limits(file_bytes=100))
    assert search.in_chunks([b"." * 100, VALUE.encode()], "dump.sql") == []
    assert "all or the end of dump.sql" in search.left_out()


@pytest.mark.parametrize("limits", [Limits(files=1), Limits(bytes=10), Limits(seconds=1)])
def test_what_is_beyond_a_limit_is_told(limits):
    clock = iter([0.0, 0.5, 0.6, 0.7, 5.0, 6.0, 7.0])
    search = Search({"X": VALUE}, limits, clock=lambda: next(clock))
    assert search.in_chunks([VALUE.encode()], "first") == ["X"]
    list(iter(lambda: search.exhausted, True))
    assert search.in_chunks([VALUE.encode()], "second") == []
    assert "second" in search.left_out()
    assert "first" not in search.left_out()


def test_a_large_file_takes_no_memory(tmp_path):
    """A dump of 2 GiB once took 4 GiB."""
    path = tmp_path / "dump.sql"
    with path.open("wb") as file:
        file.write(b"INSERT INTO t VALUES (1);\n" * 800_000)
        file.flush()
        os.truncate(path, 2 << 30)
    program = (
        "import sys, tracemalloc; from pathlib import Path; from ops.secrets.leaks import Search; tracemalloc.start();"
        f"search = Search({{'X': {VALUE!r}}}); search.in_file(Path(sys.argv[1]), 'dump.sql');"
        "assert search.unread == ['dump.sql'];"
        "print(tracemalloc.get_traced_memory()[1])"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, str(path)], cwd=OPS, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 8 << 20
