"""Unknown names suggest the near miss; duplicates are errors; exit codes are what the documentation says."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secli.errors import (
    InputError,
    InterruptedRunError,
    SecliError,
    UnknownNameError,
    as_message,
    printable,
    shown,
    suggestion,
)
from secli.registry import Registry


@dataclass(frozen=True)
class Thing:
    name: str


def test_lookup_order_and_membership() -> None:
    things = Registry("thing", [Thing("b"), Thing("a")])
    assert list(things) == ["b", "a"]
    assert things["a"] == Thing("a")
    assert "b" in things
    assert len(things) == 2


def test_an_unknown_name_suggests_the_near_miss() -> None:
    things = Registry("thing", [Thing("mnist_cnn_28"), Thing("dss_v1")])
    with pytest.raises(UnknownNameError, match="unknown thing 'mnist_cnn28'; did you mean 'mnist_cnn_28'\\?"):
        things["mnist_cnn28"]
    with pytest.raises(UnknownNameError, match="unknown thing 'vit'; known: dss_v1, mnist_cnn_28"):
        things["vit"]


def test_a_duplicate_is_an_error() -> None:
    with pytest.raises(ValueError, match="thing 'a' is registered twice"):
        Registry("thing", [Thing("a"), Thing("a")])


def test_exit_codes() -> None:
    assert SecliError.exit_code == 1
    assert InputError.exit_code == UnknownNameError.exit_code == 2
    assert InterruptedRunError.exit_code == 130
    assert suggestion("x", []) == ""


@given(st.text(st.characters(), max_size=60))
def test_printable_text_is_one_that_no_terminal_obeys(text: str) -> None:
    shown_text = printable(text)
    assert not any(character < " " or "\x7f" <= character <= "\x9f" for character in shown_text)
    shown_text.encode("utf-8")  # no half of a surrogate pair
    if text.isascii() and text.isprintable():
        assert shown_text == text


def test_line_ends_of_a_layout_stay() -> None:
    assert printable("a\nb\x1b[0m\x07\u202e", keep="\n") == "a\nb\\x1b[0m\\x07\\u202e"


def tangled() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(10**5000, id="digits"),
        pytest.param("x" * 10**6, id="characters"),
        pytest.param(list(range(10**6)), id="list"),
        pytest.param(dict.fromkeys(range(9), "x" * 10 ** 6), id="mapping"),
        pytest.param([[[[[[1]]]]]], id="deep"),
        pytest.param(tangled(), id="tangled"),
    ],
)
def test_any_value_is_shown_in_few_characters(value: object) -> None:
    assert 0 < len(shown(value)) <= 60


def test_a_message_keeps_its_file_name_and_shortens_the_value() -> None:
    file = "runs/" + "deep/" * 30 + "record.json"
    line = as_message(f"{file}: no such\nthing as '{'x' * 5000}'; leave it out")
    assert line.startswith(f"{file}: no such thing as 'xxx")
    assert line.endswith("xxx'; leave it out")
    assert len(line) <= 300
    assert len(as_message("a/" * 5000)) <= 300
    assert len(as_message("word " * 5000)) <= 300
    assert as_message("short: told") == "short: told"


def test_a_list_of_known_names_is_not_endless() -> None:
    told = suggestion("zzz", [f"name{number}" for number in range(1000)])
    assert told.endswith(", … (1000 in all)")
    assert len(told) < 200
    with pytest.raises(UnknownNameError) as caught:
        raise UnknownNameError("model", "x" * 5000, ["cnn"])
    assert len(str(caught.value)) < 120
