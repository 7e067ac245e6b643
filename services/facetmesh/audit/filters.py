"""Filters over events: the part of AIP-160's language that docs/audit.md describes.

    time >= "2026-11-01T00:00:00Z" AND outcome = REFUSED AND (method = "*/Detect" OR method = "*/Fuse")

    filter      = term { AND term }
    term        = factor { OR factor }              OR binds tighter than AND, as AIP-160 has it
    factor      = [ NOT | "-" ] ( "(" filter ")" | field comparator value )
    comparator  = "=" | "!=" | "<" | "<=" | ">" | ">=" | ":"

In texts `=` and `!=` take a `*` for any characters, and `:` asks whether the value
occurs. Times are RFC 3339 in quotes, durations end with an `s`.

Source: https://google.aip.dev/160.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from facetmesh.kit.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from facetmesh.event.v1.event_pb2 import AuditEvent

MAX_LENGTH = 2048
"""The longest filter, in characters."""
MAX_DEPTH = 16
"""How deep parentheses and negations may stand within each other."""
END_US = 1 << 62
"""Later than any event, in microseconds since the epoch."""

_TOKEN = re.compile(
    r"""\s+ | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*') | (?P<sign><=|>=|!=|[=<>:()])
    | (?P<minus>-(?=[A-Za-z(])) | (?P<text>[^\s"'<>=!:()]+)""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(.)")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)s")
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_PLAIN = (
    "id", "service", "method", "tenant", "subject", "source_address", "resource", "model_version", "model_sha256",
    "region", "code", "reason", "trace_id",
)  # fmt: skip
TEXT_FIELDS = frozenset({*_PLAIN, "kind", "outcome"})
"""The fields that are texts."""
_OUTCOMES = {1: "OK", 2: "REFUSED", 3: "FAILED"}


class Condition(Protocol):
    """What an event can meet."""

    def matches(self, event: AuditEvent) -> bool:
        """Whether it does."""
        ...


@dataclass(frozen=True, slots=True)
class _All:
    parts: Sequence[Condition]

    def matches(self, event: AuditEvent) -> bool:
        for part in self.parts:  # noqa: SIM110 - each event meets each rule: a generator costs more than the matching
            if not part.matches(event):
                return False
        return True


@dataclass(frozen=True, slots=True)
class _Any:
    parts: Sequence[Condition]

    def matches(self, event: AuditEvent) -> bool:
        return any(part.matches(event) for part in self.parts)


@dataclass(frozen=True, slots=True)
class _Not:
    part: Condition

    def matches(self, event: AuditEvent) -> bool:
        return not self.part.matches(event)


@dataclass(frozen=True, slots=True)
class _Compared:
    """A field compared by order: a time or a duration, in microseconds."""

    field: str
    comparator: str
    value_us: int

    def matches(self, event: AuditEvent) -> bool:
        moment = event.time if self.field == "time" else event.duration
        return _ORDER[self.comparator](moment.ToMicroseconds(), self.value_us)


@dataclass(frozen=True, slots=True)
class _Like:
    """A text compared with a pattern, in time that grows with their lengths alone."""

    field: str
    pieces: Sequence[str]
    """What stands between the pattern's stars."""

    def matches(self, event: AuditEvent) -> bool:
        text = text_of(event, self.field)
        if len(self.pieces) == 1:
            return text == self.pieces[0]
        first, *middle, last = self.pieces
        if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
            return False
        at, end = len(first), len(text) - len(last)
        for piece in middle:
            found = text.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are asked for."""

    text: str
    """As it was given."""
    condition: Condition
    since_us: int
    """No event from before this time matches, in microseconds since the epoch."""
    until_us: int
    """No event of this time or later matches."""

    def matches(self, event: AuditEvent) -> bool:
        """Whether an event is asked for."""
        return self.condition.matches(event)


def parse_filter(text: str) -> Filter:
    """The filter that a text describes; the empty one lets every event through.

    Raises:
        InvalidArgument: FILTER_INVALID; the message says where and why.
    """
    if len(text) > MAX_LENGTH:
        raise _wrong(f"it is longer than {MAX_LENGTH} characters")
    tokens = list(_tokens(text))
    condition: Condition = _Parser(tokens).whole() if tokens else _All(())
    since_us, until_us = _times(condition)
    return Filter(text, condition, since_us, until_us)


def _wrong(what: str) -> InvalidArgument:
    return InvalidArgument(f"The filter cannot be read: {what}.", reason="FILTER_INVALID")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _wrong(f"{text[at:at + 12]!r} is out of place")
        at = match.end()
        if match.lastgroup == "string":
            yield _Token("string", _ESCAPE.sub(r"\1", match[0][1:-1]))
        elif match.lastgroup is not None:
            yield _Token(match.lastgroup, match[0])


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens = tokens
        self._at = 0

    def whole(self) -> Condition:
        condition = self._filter(0)
        if self._at < len(self._tokens):
            raise _wrong(f"{self._tokens[self._at].text!r} is out of place: is an AND or OR missing before it?")
        return condition

    def _filter(self, depth: int) -> Condition:
        parts = [self._term(depth)]
        while self._take("text", "AND"):
            parts.append(self._term(depth))
        return parts[0] if len(parts) == 1 else _All(parts)

    def _term(self, depth: int) -> Condition:
        parts = [self._factor(depth)]
        while self._take("text", "OR"):
            parts.append(self._factor(depth))
        return parts[0] if len(parts) == 1 else _Any(parts)

    def _factor(self, depth: int) -> Condition:
        if depth > MAX_DEPTH:
            raise _wrong(f"it is nested deeper than {MAX_DEPTH}")
        if self._take("text", "NOT") or self._take("minus", "-"):
            return _Not(self._factor(depth + 1))
        if self._take("sign", "("):
            inner = self._filter(depth + 1)
            if not self._take("sign", ")"):
                raise _wrong("a parenthesis is not closed")
            return inner
        field, comparator, value = self._next("text"), self._next("sign"), self._next("string", "text")
        return _comparison(field, comparator, value)

    def _take(self, kind: str, text: str) -> bool:
        there = self._at < len(self._tokens) and self._tokens[self._at] == _Token(kind, text)
        self._at += there
        return there

    def _next(self, *kinds: str) -> str:
        if self._at == len(self._tokens):
            raise _wrong("it ends too early")
        token = self._tokens[self._at]
        if token.kind not in kinds:
            raise _wrong(f"{token.text!r} is out of place: a comparison is a field, a comparator and a value")
        self._at += 1
        return token.text


def _comparison(field: str, comparator: str, value: str) -> Condition:
    if field in {"time", "duration"}:
        if comparator not in _ORDER:
            raise _wrong(f"{field} cannot be compared by {comparator!r}")
        return _Compared(field, comparator, _time_us(value) if field == "time" else _duration_us(value))
    if field not in TEXT_FIELDS:
        raise _wrong(f"events have no field {field!r}")
    if comparator not in {"=", "!=", ":"}:
        raise _wrong(f"{field} cannot be compared by {comparator!r}")
    if field == "outcome":
        value = value.removeprefix("OUTCOME_")
    like = _Like(field, (f"*{value}*" if comparator == ":" else value).split("*"))
    return _Not(like) if comparator == "!=" else like


def text_of(event: AuditEvent, field: str) -> str:
    """The value of one of TEXT_FIELDS."""
    if field == "kind":
        return event.method.rpartition("/")[2]
    if field == "outcome":
        return _OUTCOMES.get(event.outcome, "UNSPECIFIED")
    text: str = getattr(event, field)
    return text


def _time_us(value: str) -> int:
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise _wrong(f'{value!r} is no time such as "2026-11-01T00:00:00Z"')
    return round(time.timestamp() * 1_000_000)


def _duration_us(value: str) -> int:
    match = _DURATION.fullmatch(value)
    if match is None:
        raise _wrong(f"{value!r} is no duration such as 1.5s")
    return round(float(match[1]) * 1_000_000)


def _times(condition: Condition) -> tuple[int, int]:
    """From which time on, and before which, everything lies that can meet a condition."""
    since_us, until_us = 0, END_US
    for part in condition.parts if isinstance(condition, _All) else (condition,):
        if isinstance(part, _All):
            inner_since, inner_until = _times(part)
        elif isinstance(part, _Compared) and part.field == "time":
            inner_since = {">=": part.value_us, ">": part.value_us + 1, "=": part.value_us}.get(part.comparator, 0)
            ends = {"<": part.value_us, "<=": part.value_us + 1, "=": part.value_us + 1}
            inner_until = ends.get(part.comparator, END_US)
        else:
            continue
        since_us, until_us = max(since_us, inner_since), min(until_us, inner_until)
    return since_us, until_us
