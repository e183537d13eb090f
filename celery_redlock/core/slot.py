"""Which names share a slot of a cluster, and so can be asked for in one call.

A cluster places a key by what stands between its first opening brace, which is ours, and the first
closing one: that of the name, if its template has one in double braces, else ours after the name.
"""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

from celery_redlock.core.template import Template
from celery_redlock.exceptions import ConfigurationError


def check_one_slot(task: str, templates: Sequence[str], prefix: str) -> None:
    """Raise ConfigurationError for templates whose names may be in several slots."""
    tagged_by_prefix = "}" in prefix.partition("{")[2]
    tags = {_tag(Template.parse(text)) for text in templates}
    if tagged_by_prefix or len(set(templates)) == 1 or (len(tags) == 1 and None not in tags):
        return
    raise ConfigurationError(
        f"task {task}: expected the templates of lock_key to share a slot of the cluster, got "
        f"{', '.join(templates)}; begin them all with the same text in double braces, for instance "
        f'"{{{{shop}}}}:account:{{account_id}}"'
    )


def _tag(template: Template) -> Optional[Tuple[str, ...]]:
    """What decides about the slot, as pieces of the template; None if that is the whole name."""
    pieces: List[str] = []
    for literal, field in template.parts:
        before, brace, _after = literal.partition("}")
        if brace:
            return (*pieces, before)
        pieces += [literal, field]
    return None
