"""Templates whose names share a slot of a cluster, told from those whose names may not."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest
from redis.crc import key_slot

from celery_redlock.core.slot import check_one_slot
from celery_redlock.core.template import Template
from celery_redlock.exceptions import ConfigurationError

ARGUMENTS: List[Dict[str, Any]] = [{"a": "1", "b": "2"}, {"a": "x", "b": "y"}]

TOGETHER = [
    ["{{shop}}:account:{a}", "{{shop}}:stock:{b}"],
    ["{{shop:{a}}}:account", "{{shop:{a}}}:stock:{b}"],
    ["{{{a}}}:account", "{{{a}}}:stock"],
    ["same:{a}", "same:{a}"],
    ["a}}:{a}", "a}}:{b}"],
]
APART = [
    ["account:{a}", "stock:{b}"],
    ["{{shop}}:account:{a}", "{{store}}:stock:{b}"],
    ["account:{{shop}}:{a}", "stock:{{shop}}:{b}"],
    ["{{shop:{a}}}:account", "{{shop:{b}}}:stock"],
    ["{{shop}}:account:{a}", "stock:{b}"],
]


def slots(prefix: str, templates: List[str], arguments: Dict[str, Any]) -> int:
    names = (Template.parse(text).render(arguments) for text in templates)
    return len({key_slot(f"{prefix}{{{name}}}:{key}".encode()) for name in names for key in "hqw"})


@pytest.mark.parametrize("templates", TOGETHER)
def test_what_is_taken_for_one_slot_is_one(templates: List[str]) -> None:
    check_one_slot("shop.sync", templates, "redlock:shop:1:")
    assert [slots("redlock:shop:1:", templates, each) for each in ARGUMENTS] == [1, 1]


@pytest.mark.parametrize("templates", APART)
def test_what_may_be_several_slots_is_refused(templates: List[str]) -> None:
    with pytest.raises(ConfigurationError, match="share a slot of the cluster"):
        check_one_slot("shop.sync", templates, "redlock:shop:1:")
    assert max(slots("redlock:shop:1:", templates, each) for each in ARGUMENTS) > 1


@pytest.mark.parametrize("templates", TOGETHER + APART)
def test_a_tag_in_the_prefix_keeps_everything_together(templates: List[str]) -> None:
    check_one_slot("shop.sync", templates, "redlock:{shop}:1:")
    assert [slots("redlock:{shop}:1:", templates, each) for each in ARGUMENTS] == [1, 1]
