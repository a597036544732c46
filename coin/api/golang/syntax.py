"""What is wrong with JSON, in the words of Go's scanner: the first letter that cannot stand where it stands.

Only asked when a body could not be read; nothing is made of the values. It goes on in one pass, with a stack
of what is open.
"""

from __future__ import annotations

from typing import Final

SPACE: Final = " \t\r\n"
_DIGITS: Final = "0123456789"
_HEX: Final = "0123456789abcdefABCDEF"
_LITERALS: Final = {"t": "true", "f": "false", "n": "null"}
CUT: Final = "unexpected EOF"


class _FaultError(Exception):
    """Where the scanner stops, as a sentence of Go's."""


def fault(text: str) -> str:
    """Why the first value of `text` is no JSON; empty if it is."""
    if not text.strip(SPACE):
        return "EOF"
    try:
        _Scanner(text).value()
    except _FaultError as found:
        return str(found)
    return ""


class _Scanner:
    """Goes over a text once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def _peek(self) -> str:
        if self._at >= len(self._text):
            raise _FaultError(CUT)
        return self._text[self._at]

    def _wrong(self, where: str) -> _FaultError:
        return _FaultError(f"invalid character {_shown(self._peek())} {where}")

    def _skip(self) -> str:
        while self._peek() in SPACE:
            self._at += 1
        return self._peek()

    def value(self) -> None:
        """The first value, with all that is in it."""
        opened: list[str] = []
        self._begin(opened)
        while opened:
            inside = opened[-1]
            letter = self._skip()
            if letter == inside:
                self._at += 1
                opened.pop()
            elif letter == ",":
                self._at += 1
                if inside == "}":
                    self._key("looking for beginning of object key string")
                self._begin(opened)
            else:
                raise self._wrong("after object key:value pair" if inside == "}" else "after array element")

    def _begin(self, opened: list[str]) -> None:
        """Goes over a value, or into one: then it is in `opened`, behind its first element's beginning."""
        while True:
            letter = self._skip()
            if letter == "{":
                self._at += 1
                if self._skip() == "}":
                    self._at += 1
                    return
                self._key("looking for beginning of object key string")
                opened.append("}")
            elif letter == "[":
                self._at += 1
                if self._skip() == "]":
                    self._at += 1
                    return
                opened.append("]")
            else:
                return self._scalar(letter)

    def _key(self, where: str) -> None:
        if self._skip() != '"':
            raise self._wrong(where)
        self._string()
        if self._skip() != ":":
            raise self._wrong("after object key")
        self._at += 1

    def _scalar(self, letter: str) -> None:
        if letter == '"':
            self._string()
        elif letter == "-" or letter in _DIGITS:
            self._number()
        elif letter in _LITERALS:
            self._literal(_LITERALS[letter])
        else:
            raise self._wrong("looking for beginning of value")

    def _literal(self, word: str) -> None:
        for expected in word:
            if self._peek() != expected:
                raise self._wrong(f"in literal {word} (expecting '{expected}')")
            self._at += 1

    def _string(self) -> None:
        self._at += 1
        while (letter := self._peek()) != '"':
            if letter < " ":
                raise self._wrong("in string literal")
            self._at += 1
            if letter == "\\":
                self._escape()
        self._at += 1

    def _escape(self) -> None:
        letter = self._peek()
        if letter not in '"\\/bfnrtu':
            raise self._wrong("in string escape code")
        self._at += 1
        for _ in range(4 if letter == "u" else 0):
            if self._peek() not in _HEX:
                raise self._wrong("in \\u hexadecimal character escape")
            self._at += 1

    def _digits(self, where: str) -> None:
        if self._peek() not in _DIGITS:
            raise self._wrong(where)
        while self._at < len(self._text) and self._text[self._at] in _DIGITS:
            self._at += 1

    def _number(self) -> None:
        if self._peek() == "-":
            self._at += 1
        if self._peek() == "0":
            self._at += 1
        else:
            self._digits("in numeric literal")
        if self._at < len(self._text) and self._peek() == ".":
            self._at += 1
            self._digits("after decimal point in numeric literal")
        if self._at < len(self._text) and self._peek() in "eE":
            self._at += 1
            if self._peek() in "+-":
                self._at += 1
            self._digits("in exponent of numeric literal")


def _shown(letter: str) -> str:
    from coin.api.golang.text import quote

    if letter == "'":
        return "'\\''"
    if letter == '"':
        return "'\"'"
    return "'" + quote(letter)[1:-1] + "'"
