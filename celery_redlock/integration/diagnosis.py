"""Findings as they are told: as lines for a terminal, as plain values for a program."""

from __future__ import annotations

from typing import Any, Dict, Iterator, Optional, Sequence, Tuple

from celery_redlock.core.checkup.finding import Finding, Severity
from celery_redlock.integration.listing import plain

#: A line, and how bad it is what it tells; None for what goes with another line.
Line = Tuple[Optional[Severity], str]


def counted(findings: Sequence[Finding]) -> Dict[Severity, int]:
    """How many there are of each severity."""
    severities = [finding.severity for finding in findings]
    return {severity: severities.count(severity) for severity in Severity}


def as_json(findings: Sequence[Finding]) -> Dict[str, Any]:
    """The findings as plain values, and their numbers."""
    count = counted(findings)
    told = [{**finding._asdict(), "severity": finding.severity.value} for finding in findings]
    numbers = {"problems": count[Severity.PROBLEM], "warnings": count[Severity.WARNING]}
    return {"findings": told, **numbers}


def as_lines(findings: Sequence[Finding], app: str) -> Iterator[Line]:
    """The findings in their order, under the server or the app that each is about."""
    width = max((len(finding.name) for finding in findings), default=0)
    where = None
    for finding in findings:
        if finding.where != where:
            where = finding.where
            yield None, plain(where or f"app {app}")
        yield finding.severity, plain(_line(finding.severity.value, finding.name, width, finding))
        if finding.advice:
            yield None, plain(f"{'':<{width + 13}}-> {finding.advice}")
    count = counted(findings)
    yield (
        None,
        (
            f"problems: {count[Severity.PROBLEM]}, warnings: {count[Severity.WARNING]}, "
            f"ok: {count[Severity.OK]}"
        ),
    )


def _line(severity: str, name: str, width: int, finding: Finding) -> str:
    return f"  {severity:<9}{name:<{width}}  {finding.sentence}"
