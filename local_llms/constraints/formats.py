"""String formats of JSON Schema as regular expressions.

Each expression describes a part of its format, so that whatever fits it is sound for every reader: dates that exist, in
years of four digits (RFC 3339), addresses and links of the common shape.
"""

from __future__ import annotations

_DAY = (
    r"(?:[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    r"|(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:1[26]|[2468][048]|[3579][26])00)-02-29)"
)
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:0[0-9]|1[0-3]):[0-5][0-9])"
_SPAN = r"[0-9]{1,4}H(?:[0-9]{1,3}M)?(?:[0-9]{1,3}S)?|[0-9]{1,4}M(?:[0-9]{1,3}S)?|[0-9]{1,5}S"
_LABEL = r"[a-z0-9]{1,20}(?:-[a-z0-9]{1,20})?"
_HOST = rf"(?:{_LABEL}\.){{1,4}}[a-z]{{2,12}}"
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_HEX = "[0-9a-f]"

PATTERNS = {
    "date": _DAY,
    "time": _CLOCK,
    "date-time": f"{_DAY}T{_CLOCK}",
    "duration": rf"P(?:[0-9]{{1,4}}D(?:T(?:{_SPAN}))?|T(?:{_SPAN})|[0-9]{{1,3}}W)",
    "email": rf"[a-z0-9]{{1,20}}(?:[._-][a-z0-9]{{1,20}}){{0,2}}@{_HOST}",
    "hostname": _HOST,
    "ipv4": rf"{_BYTE}(?:\.{_BYTE}){{3}}",
    "ipv6": rf"{_HEX}{{1,4}}(?::{_HEX}{{1,4}}){{7}}",
    "uuid": rf"{_HEX}{{8}}-{_HEX}{{4}}-[1-5]{_HEX}{{3}}-[89ab]{_HEX}{{3}}-{_HEX}{{12}}",
    "uuid4": rf"{_HEX}{{8}}-{_HEX}{{4}}-4{_HEX}{{3}}-[89ab]{_HEX}{{3}}-{_HEX}{{12}}",
    "uri": rf"https?://{_HOST}(?:/[A-Za-z0-9._~-]{{0,40}}){{0,8}}(?:\?[A-Za-z0-9=&_.-]{{1,80}})?",
}
"""Name of a format → what a string must match as a whole."""

FREE = frozenset({"binary", "byte", "password", "path", "textarea", "int32", "int64", "float", "double"})
"""Formats that say how a value is shown or kept, and exclude none."""

_DIGIT, _WORD, _SPACE = r"\p{Nd}", r"\p{L}\p{M}\p{N}\p{Pc}\p{Cf}", r"\s\x1c-\x1f\x{85}\x{feff}"
_SURE = {"d": "0-9", "w": "0-9A-Za-z_", "s": r" \t\n\r"}
_PERHAPS = {"d": _DIGIT, "w": _WORD, "s": _SPACE}


def portable(pattern: str) -> str:
    r"""A regular expression of which all readers agree that what it matches fits ``pattern``.

    To some ``\d``, ``\w`` and ``\s`` are of all scripts and to some of ASCII; so they become what all call a digit, and
    their opposites what none does. A full stop is no line end of any kind. Inside a negated class it is the other way.
    """
    written: list[str] = []
    place, inside, negated = 0, False, False
    while place < len(pattern):
        one = pattern[place]
        if one == "\\" and place + 1 < len(pattern):
            letter = pattern[place + 1]
            written.append(_class(letter, inside, negated) if letter in "dwsDWS" else one + letter)
            place += 2
            continue
        if one == "[" and not inside:
            inside, negated = True, pattern[place + 1 : place + 2] == "^"
        elif one == "]" and inside and pattern[place - 1] != "[":
            inside = False
        written.append(r"[^\n\r\x{2028}\x{2029}]" if one == "." and not inside else one)
        place += 1
    return "".join(written)


def _class(letter: str, inside: bool, negated: bool) -> str:
    kind = letter.lower()
    positive = letter == kind
    ranges = (_SURE if positive != negated else _PERHAPS)[kind]
    if inside:
        return ranges if positive else f"[^{ranges}]"
    return f"[{ranges}]" if positive else f"[^{ranges}]"
