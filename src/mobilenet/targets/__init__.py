"""What of a network falls off an accelerator's fast path, by rules from public documents."""

from .check import Finding, TargetReport, check_target, describe
from .rules import RULES, Rule

__all__ = ["RULES", "Finding", "Rule", "TargetReport", "check_target", "describe"]
