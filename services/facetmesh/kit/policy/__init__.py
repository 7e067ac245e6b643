"""Policies in Cedar: who may do what, with what, when and from where.

A policy set is text; `engine` checks and prepares it, `decisions` asks it. The
words that policies are made of stand in `vocabulary`, and come from the methods'
own access rules.
"""

from facetmesh.kit.policy.decisions import Circumstances, Decision, Policies, Question, decide
from facetmesh.kit.policy.engine import DEFAULT, LARGEST_TEXT, PLATFORM, PLATFORM_DEFAULT, PolicySet, check
from facetmesh.kit.policy.vocabulary import full_name, schema

__all__ = [
    "DEFAULT",
    "LARGEST_TEXT",
    "PLATFORM",
    "PLATFORM_DEFAULT",
    "Circumstances",
    "Decision",
    "Policies",
    "PolicySet",
    "Question",
    "check",
    "decide",
    "full_name",
    "schema",
]
