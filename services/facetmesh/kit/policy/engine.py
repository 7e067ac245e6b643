"""Policy sets: checked when they are written, prepared once, never parsed on the way of a call."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import cedarpy

from facetmesh.kit.errors import FieldViolation, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LARGEST_TEXT = 16 << 10
"""Characters of a policy set."""
DEEPEST = 24
"""Brackets within brackets. Cedar's parser goes as deep as the text does: some hundred end the process."""
LONGEST_PATH = 16
"""Attributes of attributes, as in context.a.b: thousands take all memory."""
MOST_POLICIES = 100
"""Policies of a set: what a decision costs grows with their number."""
FACTS = frozenset({"version", "licence"})
"""What only the service that runs a model knows of it."""
PLATFORM: Final = "platform"
"""The owner of the policies that hold for all."""
DEFAULT: Final = "default"
"""The version of a policy set that nobody wrote: the platform's as shipped, a tenant's that allows all."""
PLATFORM_DEFAULT = resources.files(__package__).joinpath("platform.cedar").read_text(encoding="utf-8")
"""The platform's policies as they are shipped."""
_TENANT_DEFAULT = '@id("all") permit (principal, action, resource);'
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NO_CODE = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"', re.DOTALL)  # comments and strings
_TOO_LONG_PATH = re.compile(rf"(?:\.\s*\w+\s*){{{LONGEST_PATH + 1}}}")


class PolicySet:
    """A prepared policy set.

    Args:
        name: Its resource name: {owner}/policies/{version}.
        text: Its policies.

    Raises:
        InvalidArgument: POLICY_INVALID; the text cannot be read, or a policy in it has no id of its own.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        """Its resource name."""
        self.text = text
        """Its policies, in Cedar."""
        self.prepared, parsed = _parsed(text)
        self.ids = _ids(parsed)
        """The @id of each policy, by the name that the parser gave it."""
        self._policies: Mapping[str, Any] = parsed["staticPolicies"]
        policies = list(parsed["staticPolicies"].values())
        self.reads = frozenset(_context_reads(policies))
        """What its policies want to know of the circumstances: names of the context's attributes."""
        self.reads_facts = not FACTS.isdisjoint(_attributes(policies))
        """Whether its policies want to know more of a model than its name."""

    def policy(self, policy_id: str) -> str:
        """The text of one policy, by its @id; "" where there is none."""
        for key, found in self.ids.items():
            if found == policy_id:
                one = {"templates": {}, "templateLinks": [], "staticPolicies": {key: self._policies[key]}}
                return cedarpy.format_policies(cedarpy.policies_from_json_str(json.dumps(one))).strip()
        return ""

    @classmethod
    def default(cls, owner: str) -> PolicySet:
        """The set that nobody wrote, of tenants/{tenant} or the platform."""
        return cls(f"{owner}/policies/{DEFAULT}", PLATFORM_DEFAULT if owner == PLATFORM else _TENANT_DEFAULT)


def check(text: str, schema: cedarpy.Schema) -> None:
    """Returns when a policy set may be used.

    Raises:
        InvalidArgument: POLICY_INVALID; with a violation for each thing that is wrong with it.
    """
    _, parsed = _parsed(text)
    ids = _ids(parsed)
    if not ids:
        raise _invalid(["there is none, and what nothing permits is denied"])
    result = cedarpy.validate_policies(text, schema)
    if not result.validation_passed:
        problems = [error.error.replace(f"`{error.policy_id}`", f'"{ids.get(error.policy_id, "")}"')
                    for error in result.errors]  # fmt: skip
        raise _invalid(problems)


def _parsed(text: str) -> tuple[cedarpy.PolicySet, Mapping[str, Any]]:
    _check_shape(text)
    try:
        prepared = cedarpy.PolicySet.from_str(text)
        parsed: Mapping[str, Any] = json.loads(cedarpy.policies_to_json_str(text))
    except (ValueError, RecursionError) as error:
        raise _invalid([str(error)]) from None
    if parsed["templates"]:
        raise _invalid(["templates (?principal, ?resource) are not supported"])
    if len(parsed["staticPolicies"]) > MOST_POLICIES:
        raise _invalid([f"it has {len(parsed['staticPolicies'])} policies, where {MOST_POLICIES} are allowed"])
    return prepared, parsed


def _check_shape(text: str) -> None:
    """Returns when the text may be given to the parser, which is native code and trusts it."""
    if len(text) > LARGEST_TEXT:
        raise _invalid([f"it has {len(text)} characters, where {LARGEST_TEXT} are allowed"])
    code = _NO_CODE.sub(" ", text)
    depth = 0
    for bracket in re.findall(r"[(\[{}\])]", code):
        depth += 1 if bracket in "([{" else -1
        if depth > DEEPEST:
            raise _invalid([f"it has brackets within brackets, more than {DEEPEST} deep"])
    if _TOO_LONG_PATH.search(code):
        raise _invalid([f"it has a path of more than {LONGEST_PATH} attributes"])


def _ids(parsed: Mapping[str, Any]) -> dict[str, str]:
    ids = {key: str(policy.get("annotations", {}).get("id") or "") for key, policy in parsed["staticPolicies"].items()}
    problems = [
        f'the {policy["effect"]} policy number {number} needs an @id("…") of up to 63 letters, digits, . _ -'
        for number, (key, policy) in enumerate(parsed["staticPolicies"].items(), start=1)
        if not _ID.fullmatch(ids[key])
    ]
    if len(set(ids.values())) < len(ids):
        problems.append("two policies have the same @id")
    if problems:
        raise _invalid(problems)
    return ids


def _context_reads(node: Any) -> Iterator[str]:
    """The attributes of the context in a policy's expression; all of them, as "*", where it is used as a whole."""
    if isinstance(node, list):
        for item in node:
            yield from _context_reads(item)
    elif isinstance(node, dict):
        if node.get("Var") == "context":
            yield "*"
            return
        for operator, operand in node.items():
            if operator in {".", "has"} and operand["left"] == {"Var": "context"}:
                yield operand["attr"]
            else:
                yield from _context_reads(operand)


def _attributes(node: Any) -> Iterator[str]:
    """The attributes in a policy's expression, of whatever."""
    if isinstance(node, list):
        for item in node:
            yield from _attributes(item)
    elif isinstance(node, dict):
        for operator, operand in node.items():
            if operator in {".", "has"}:
                yield operand["attr"]
            yield from _attributes(operand)


def _invalid(problems: list[str]) -> InvalidArgument:
    return InvalidArgument(
        f"The policies cannot be used: {problems[0]}.",
        reason="POLICY_INVALID",
        violations=[FieldViolation("policy.text", problem) for problem in problems[:20]],
    )
