"""How strong a secret is that somebody chose: estimated entropy, and whether it is one that everybody knows.

Standard library only. Both are estimates on the cautious side: a generated secret passes with a wide margin.
"""

from __future__ import annotations

import math
import re
from collections import Counter

# Rows of the keyboard and the two orders everybody knows: neighbours in them are guessed, not searched.
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm", "abcdefghijklmnopqrstuvwxyz", "01234567890")

_CLASSES = ((r"[a-z]", 26), (r"[A-Z]", 26), (r"[0-9]", 10), (r"[^a-zA-Z0-9]", 32))

# What placeholders are made of. A value that consists of nothing else is well known, however it is put together.
_WORDS = """
    password passwort passwd passphrase pass pwd secrets secret secure super strong safe private admin administrator
    root user guest default changeme changeit change replace please me it this that here enter your my our the a an
    with value random string letmein welcome monkey dragon master qwerty qwertz hello login todo fixme tbd none null
    placeholder example sample test testing demo foo bar baz dummy temp tmp
    jwt token access refresh key signing encryption api auth db database data sql postgres postgresql pg replication
    replicator repl redis cache rabbitmq rabbit mq amqp broker queue grafana elastic elasticsearch kibana smtp mail
    email metrics log logs shipper notification web app service server cluster stack
    dev development staging stage prod production local localhost org com net
"""
_PLACEHOLDER = re.compile("(?:" + "|".join(sorted(_WORDS.split(), key=len, reverse=True)) + r"|[0-9]{1,4}|x+)+")

# Letters that people swap for look-alikes, which guessing programs swap back.
_LOOKALIKES = str.maketrans("0134578@$", "oieastbas")


def well_known(value: str, *names: str) -> bool:
    """Whether `value` is a default, a placeholder, or made of nothing but such words and `names` (project, user …)."""
    rest = value.lower()
    for name in names:
        rest = rest.replace(name.lower(), "")
    candidates = (rest, rest.translate(_LOOKALIKES))
    stripped = (re.sub(r"[^a-z0-9]", "", candidate) for candidate in candidates)
    return any(not text or _PLACEHOLDER.fullmatch(text) for text in stripped)


def estimated_bits(value: str) -> float:
    """Estimated entropy of `value` in bits; repetition and sequences count for next to nothing."""
    unit = _period(value)
    kept = [unit[0], *(b for a, b in zip(unit, unit[1:], strict=False) if not _follows(a, b))] if unit else []
    if len(kept) < 2:
        return 0.0
    pool = sum(size for pattern, size in _CLASSES if re.search(pattern, value))
    counts = Counter(kept)
    observed = -sum(n / len(kept) * math.log2(n / len(kept)) for n in counts.values())
    # A few characters cannot show all of their alphabet: what was seen is a bound only where much was seen.
    ceiling = math.log2(pool)
    per_character = min(ceiling, observed * ceiling / math.log2(min(pool, len(kept))))
    return round(len(kept) * per_character, 1)


def _period(value: str) -> str:
    """The shortest string of which `value` is a repetition."""
    if not value:
        return value
    # A string found inside its own double before its end is periodic, with that offset.
    return value[: (value + value).find(value, 1)]


def _follows(first: str, second: str) -> bool:
    """Whether `second` repeats `first` or is its neighbour in a well-known order, either way round."""
    first, second = first.lower(), second.lower()
    return first == second or any(first + second in row or second + first in row for row in _ROWS)
