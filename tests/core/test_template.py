from __future__ import annotations

import enum
import re
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Dict, List
from urllib.parse import unquote
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from celery_redlock.core.template import Template, escape_name, fit, resource
from celery_redlock.exceptions import ConfigurationError
from tests.core.strategies import Size, Word

any_text = st.text(st.characters())  # lone surrogates too
rendered = st.one_of(
    any_text,
    st.text("%25()~:/{}ab"),
    st.integers(),
    st.booleans(),
    st.uuids(),
    st.dates(),
    st.datetimes(),
    st.decimals(),
    st.sampled_from([*Size, *Word]),
)
#: Texts with a character that no rendered value can have.
separators = st.text(":/|~ab.-", min_size=1, max_size=3).filter(lambda s: set(s) & set(":/|~"))

ALLOWED_IN_VALUES = re.compile(r"([A-Za-z0-9._@-]|%[0-9A-F]{2})*\Z")
ALLOWED_IN_NAMES = re.compile(r"([A-Za-z0-9._@:/-]|%[0-9A-F]{2})*\Z")


def text_of(value: Any) -> str:
    """What a value is rendered as, before it is escaped."""
    if isinstance(value, enum.Enum):
        value = value.value
    return value.isoformat() if isinstance(value, date) else str(value)


@given(st.lists(separators, min_size=1, max_size=3), st.data())
def test_different_arguments_never_give_one_name(between: List[str], data: Any) -> None:
    fields = [f"a{i}" for i in range(len(between) + 1)]
    text = "{a0}" + "".join(s + "{" + f + "}" for s, f in zip(between, fields[1:]))
    template = Template.parse(text)
    one = {f: data.draw(rendered) for f in fields}
    other = {f: data.draw(rendered) for f in fields}
    alike = list(map(text_of, one.values())) == list(map(text_of, other.values()))
    assert (template.render(one) == template.render(other)) == alike


@given(rendered)
def test_a_rendered_value_has_only_the_documented_characters(value: Any) -> None:
    name = Template.parse("x:{a}").render({"a": value})
    assume("(~" not in name)  # shortened
    assert name.startswith("x:")
    assert ALLOWED_IN_VALUES.match(name[2:])


@given(any_text)
def test_a_rendered_value_can_be_read_back(value: str) -> None:
    name = Template.parse("x:{a}").render({"a": value})
    assume("(~" not in name)
    assert unquote(name[2:], errors="surrogatepass") == value


@given(any_text, any_text)
def test_escaped_names_stay_distinct_and_documented(one: str, other: str) -> None:
    assert ALLOWED_IN_NAMES.match(escape_name(one))
    assert (escape_name(one) == escape_name(other)) == (one == other)


def test_only_letters_digits_and_five_marks_stand_as_they_are() -> None:
    ascii_text = "".join(map(chr, range(128)))
    kept = "".join(c for c in ascii_text if resource("{a}", a=c) == c)
    assert sorted(kept) == sorted(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@-"
    )
    assert escape_name("a:b/c (d)") == "a:b/c%20%28d%29"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a b", "a%20b"),
        ("ü", "%C3%BC"),
        ("\ud800", "%ED%A0%80"),
        ("a:b/c", "a%3Ab%2Fc"),
        ("{a}", "%7Ba%7D"),
        (7, "7"),
        (-7, "-7"),
        (True, "True"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (date(2020, 1, 2), "2020-01-02"),
        (datetime(2020, 1, 2, 3, tzinfo=timezone.utc), "2020-01-02T03%3A00%3A00%2B00%3A00"),
        (Decimal("1.50"), "1.50"),
        (Size.LARGE, "2"),
        (Word.A, "a"),
        ("", ""),
    ],
)
def test_values_are_rendered_for_people(value: Any, text: str) -> None:
    assert Template.parse("x:{a}").render({"a": value}) == f"x:{text}"


class Odd(enum.Enum):
    LIST = (1, 2)


@pytest.mark.parametrize(
    "value",
    [None, 1.5, b"a", [1], (1,), {}, time(1), timedelta(1), object(), Odd.LIST],
    ids=lambda value: type(value).__name__,
)
def test_any_other_value_is_an_error_that_names_the_argument(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="argument 'account_id'"):
        Template.parse("x:{account_id}").render({"account_id": value})


def test_an_error_about_a_value_never_shows_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Template.parse("x:{a}").render({"a": ["hunter2"]})
    assert "hunter2" not in str(caught.value)


def test_an_int_of_any_size_is_rendered() -> None:
    one, other = (resource("n:{n}", n=10**5000 + i) for i in (0, 1))
    assert one != other


def test_a_subclass_is_rendered_as_the_value_that_a_serializer_brings_back() -> None:
    class Shouting(str):
        def __str__(self) -> str:
            return self.upper()

    assert resource("x:{a}", a=Shouting("quiet")) == "x:quiet"


@pytest.mark.parametrize(
    ("text", "arguments", "name"),
    [
        ("plain text: stands", {}, "plain text: stands"),
        ("{a}", {"a": 1}, "1"),
        ("{a}{b}", {"a": 1, "b": 2}, "12"),
        ("{a}:{a}", {"a": 1}, "1:1"),
        ("{{tag}}:{a}", {"a": 1}, "{tag}:1"),
        ("{{{a}}}", {"a": 1}, "{1}"),
        ("a}}{{", {}, "a}{"),
        ("100%:{a}", {"a": 1}, "100%:1"),
        ("café:{größe}", {"größe": 1}, "café:1"),
    ],
)
def test_the_templates_own_text_stands_as_it_is(
    text: str, arguments: Dict[str, Any], name: str
) -> None:
    assert resource(text, **arguments) == name


def test_fields_are_the_placeholders_in_order() -> None:
    assert Template.parse("{b}:{a}:{b}").fields == ("b", "a")


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "{0}",
        "{a.b}",
        "{a[0]}",
        "{a!r}",
        "{a:}",
        "{a:>5}",
        "{a b}",
        "{ a}",
        "{a",
        "a}",
        "{{a}",
        "{a}}",
        "{a{b}}",
        "",
        "\ud800",
    ],
)
def test_anything_but_plain_placeholders_is_refused_with_expected_and_got(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"expected .* got .*;"):
        Template.parse(text)


def test_a_template_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="to be a str, got int"):
        Template.parse(1)  # type: ignore[arg-type]


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="empty name"):
        resource("{a}", a="")


def test_resource_refuses_missing_and_unknown_arguments() -> None:
    with pytest.raises(ConfigurationError, match="needs the argument 'arn'"):
        resource("account:{arn}")
    with pytest.raises(ConfigurationError, match="got other"):
        resource("account:{arn}", arn=1, other=2)


def test_resource_takes_an_argument_of_any_name() -> None:
    assert resource("x:{template}", template=1) == "x:1"


@given(st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=400))
def test_a_name_is_at_most_200_bytes_and_fitting_twice_changes_nothing(name: str) -> None:
    short = fit(name)
    assert len(short.encode()) <= 200
    assert fit(short) == short
    assert short == name or len(name.encode()) > 200


@given(st.integers(60, 260), any_text, any_text)
def test_names_stay_distinct_when_they_are_shortened(length: int, one: str, other: str) -> None:
    names = [fit("é" * length + escape_name(text)) for text in (one, other)]
    assert (names[0] == names[1]) == (one == other)


def test_a_long_name_keeps_its_first_120_bytes() -> None:
    short = fit("a" * 201)
    assert short.startswith("a" * 120 + "(~")
    assert len(short) == 187


@pytest.mark.parametrize("before", range(115, 121))
def test_a_long_name_is_never_cut_within_a_character_or_an_escape(before: int) -> None:
    head = fit("a" * before + "é€𝄞" * 30).split("(~")[0]
    assert re.fullmatch("a+é?€?𝄞?", head)
    head = fit("a" * before + "%C3%BC" * 30).split("(~")[0]
    assert re.fullmatch("a+(%[0-9A-F]{2})*", head)
    assert len(head) >= 118


def test_a_name_of_exactly_200_bytes_stands() -> None:
    assert fit("a" * 200) == "a" * 200
    assert fit("é" * 100) == "é" * 100
