import json

import pytest

from newservice.__main__ import main


def test_it_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["event"] == "done"
