"""Rules that watch what happens: a file says when somebody should look. alerts.yaml describes them.

What they remember is bounded, whatever is thrown at them: of the subjects that are
counted or known, the longest unseen are forgotten first. One that comes back is new,
and what is seen first of a new one raises nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from string import Template
from typing import TYPE_CHECKING, Any, Literal, get_args

from facetmesh.audit.filters import TEXT_FIELDS, Filter, parse_filter, text_of
from facetmesh.kit.alerts import Alert
from facetmesh.kit.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from facetmesh.event.v1.event_pb2 import AuditEvent

When = Literal["count", "new", "late", "silence"]
Sighting = tuple[str, str, str]
"""A rule's name, a subject, and a value that was seen with it."""
_MOST_SUBJECTS = 10_000
_MOST_VALUES = 256
_MOST_SIGHTINGS = 100_000
"""How many values of all subjects together: some 20 MB for each rule, and every key of a large mesh in one region."""
_LARGEST_COUNT = 10_000
_KEYS = frozenset({"name", "when", "filter", "by", "value", "count", "window_s", "critical", "summary"})


@dataclass(frozen=True, slots=True)
class Rule:
    """When somebody should look. The fields are those of the file."""

    name: str
    when: When
    wanted: Filter
    summary: Template
    by: str = ""
    value: str = ""
    count: int = 1
    window_s: float = 0.0
    critical: bool = False

    def subject(self, event: AuditEvent) -> str:
        """What an alert about this event is about."""
        return text_of(event, self.by) if self.by else ""

    def alert(self, subject: str, *, tenant: str = "", count: int = 0, value: str = "") -> Alert:
        """The alert."""
        summary = self.summary.safe_substitute(
            subject=subject or "somebody unknown", count=count, window=f"{self.window_s:g}", value=value
        )
        return Alert(
            self.name, summary, critical=self.critical, tenant=tenant, subject=subject, count=count,
            window_s=self.window_s,
        )


def load_rules(listed: Any) -> list[Rule]:
    """The rules of a file, as YAML or JSON gives them.

    Raises:
        FailedPrecondition: ALERT_RULES_INVALID; the message names the rule and what is wrong.
    """
    rules = listed.get("rules") if isinstance(listed, dict) else None
    if not isinstance(rules, list):
        raise _invalid("the file", "it has no list `rules`")
    loaded = [_rule(one) for one in rules]
    if len({rule.name for rule in loaded}) < len(loaded):
        raise _invalid("the file", "two rules have the same name")
    return loaded


def _rule(listed: Any) -> Rule:
    if not isinstance(listed, dict) or not isinstance(listed.get("name"), str):
        raise _invalid("a rule", "it has no name")
    name = listed["name"]
    unknown = listed.keys() - _KEYS
    if unknown:
        raise _invalid(name, f"it has no field {min(unknown)!r}")
    try:
        rule = Rule(
            name, listed.get("when", "count"), parse_filter(listed.get("filter", "")),
            Template(str.strip(listed["summary"])),
            by=listed.get("by", ""), value=listed.get("value", ""), count=int(listed.get("count", 1)),
            window_s=float(listed.get("window_s", 0)), critical=bool(listed.get("critical", False)),
        )
    except InvalidArgument as error:
        raise _invalid(name, error.message) from error
    except (KeyError, TypeError, ValueError) as error:
        raise _invalid(name, f"a value is missing or wrong: {error}") from error
    _check(rule)
    return rule


def _check(rule: Rule) -> None:
    name = rule.name
    if rule.when not in get_args(When):
        raise _invalid(name, f"`when` is one of {', '.join(get_args(When))}")
    if not 1 <= rule.count <= _LARGEST_COUNT:
        raise _invalid(name, f"`count` is 1 to {_LARGEST_COUNT}")
    if not 0 <= rule.window_s <= 86_400 * 366 or (rule.when in {"late", "silence"} and not rule.window_s):
        raise _invalid(name, "`window_s` is missing, negative or longer than a year")
    for which, chosen in (("by", rule.by), ("value", rule.value)):
        if chosen and chosen not in TEXT_FIELDS:
            raise _invalid(name, f"`{which}` is {chosen!r}, which events do not have")
    if (rule.when == "new") != bool(rule.value):
        raise _invalid(name, "`value` belongs to `when: new`, and only there")


def _invalid(name: str, what: str) -> FailedPrecondition:
    return FailedPrecondition(f"The alert rules cannot be used: {name}: {what}.", reason="ALERT_RULES_INVALID")


@dataclass(slots=True)
class _Counted:
    """What is remembered of one subject."""

    times_us: deque[int]
    """When the latest events happened that count."""
    since: int = 0
    """How many there were since the last alert."""
    quiet_until_us: int = 0


@dataclass(slots=True)
class _Memory:
    """What is remembered for one rule."""

    counted: OrderedDict[str, _Counted] = field(default_factory=OrderedDict)
    seen: OrderedDict[str, set[str]] = field(default_factory=OrderedDict)
    sightings: int = 0
    """How many values are in `seen`."""
    newest_us: int = 0
    silent: bool = False


class Rules:
    """The rules at work.

    Args:
        rules: The rules.
        sightings: What was seen before, for those that look for what is new.
        now_us: The time, in microseconds since the epoch: silence begins to count.
    """

    def __init__(self, rules: Sequence[Rule], sightings: Iterable[Sighting], now_us: int) -> None:
        self._memories = {rule.name: (rule, _Memory()) for rule in rules}
        self._newest_us = 0
        self._started_us = now_us
        self.sightings: list[Sighting] = []
        """What was seen for the first time, to be kept; who keeps it empties the list."""
        self.forgotten: list[tuple[str, str]] = []
        """Rules' names and the subjects of which nothing is known any more; who forgets them too empties the list."""
        for name, subject, value in sightings:
            if name in self._memories:
                self._see(*self._memories[name], subject, value)

    def feed(self, event: AuditEvent) -> list[Alert]:
        """The alerts that an event raises. Events come in the order of the log."""
        time_us = event.time.ToMicroseconds()
        alerts = [
            alert
            for rule, memory in self._memories.values()
            if rule.wanted.matches(event) and (alert := self._fed(rule, memory, event, time_us)) is not None
        ]
        self._newest_us = max(self._newest_us, time_us)
        return alerts

    def tick(self, now_us: int) -> list[Alert]:
        """The alerts that it raises that nothing happened until now."""
        alerts = []
        for rule, memory in self._memories.values():
            quiet_us = now_us - max(memory.newest_us, self._started_us)
            if rule.when == "silence" and not memory.silent and quiet_us > rule.window_s * 1e6:
                memory.silent = True
                alerts.append(rule.alert(""))
        return alerts

    def _fed(self, rule: Rule, memory: _Memory, event: AuditEvent, time_us: int) -> Alert | None:
        subject = rule.subject(event)
        memory.newest_us, memory.silent = max(memory.newest_us, time_us), False
        if rule.when == "count":
            return _counted(rule, memory, subject, event.tenant, time_us)
        if rule.when == "late" and self._newest_us - time_us > rule.window_s * 1e6:
            return _counted(rule, memory, subject, event.tenant, self._newest_us)
        if rule.when == "new":
            return self._looked_at(rule, memory, subject, event)
        return None

    def _looked_at(self, rule: Rule, memory: _Memory, subject: str, event: AuditEvent) -> Alert | None:
        value = text_of(event, rule.value)
        if not value:
            return None
        known = subject in memory.seen
        if not self._see(rule, memory, subject, value):
            return None
        self.sightings.append((rule.name, subject, value))
        return rule.alert(subject, tenant=event.tenant, value=value) if known else None

    def _see(self, rule: Rule, memory: _Memory, subject: str, value: str) -> bool:
        """Remembers a value of a subject; returns whether it is a new one that says something."""
        values = memory.seen.setdefault(subject, set())
        memory.seen.move_to_end(subject)
        if value in values or len(values) == _MOST_VALUES:  # so many that another one says nothing
            return False
        values.add(value)
        memory.sightings += 1
        while memory.sightings > _MOST_SIGHTINGS:
            longest_unseen, forgotten = memory.seen.popitem(last=False)
            memory.sightings -= len(forgotten)
            self.forgotten.append((rule.name, longest_unseen))
        return True


def _counted(rule: Rule, memory: _Memory, subject: str, tenant: str, time_us: int) -> Alert | None:
    one = memory.counted.setdefault(subject, _Counted(deque(maxlen=rule.count)))
    memory.counted.move_to_end(subject)
    if len(memory.counted) > _MOST_SUBJECTS:
        memory.counted.popitem(last=False)
    window_us = int(rule.window_s * 1e6)
    one.times_us.append(time_us)
    one.since += 1
    full = len(one.times_us) == rule.count and (not window_us or max(one.times_us) - min(one.times_us) <= window_us)
    if not full or time_us < one.quiet_until_us:
        return None
    alert = rule.alert(subject, tenant=tenant, count=one.since)
    one.since, one.quiet_until_us = 0, time_us + window_us
    one.times_us.clear()
    return alert
