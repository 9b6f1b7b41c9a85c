"""The table of codes: each is used, worded on one line without an end stop, and explained in a sentence."""

import re
import string
from pathlib import Path

import pytest

import secli
from secli.records.codes import CODES, GROUPS

PACKAGE = Path(secli.__file__).parent


def written(outside: str = "records/codes.py") -> str:
    files = (file for file in PACKAGE.rglob("*.py") if file != PACKAGE / outside)
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def test_every_code_is_used_by_the_package() -> None:
    text = written()
    assert [code for code in CODES if f'"{code}"' not in text] == []


def test_every_code_that_the_package_uses_is_in_the_table() -> None:
    calls = re.findall(r"Note\.of\(\s*(.*?)[,)]", written(), re.DOTALL)
    used = {code for call in calls for code in re.findall(r'"([^"]+)"', call)}
    assert len(used) > 50
    assert used - CODES.keys() == set()


def test_no_code_is_in_two_groups() -> None:
    assert sum(map(len, GROUPS.values())) == len(CODES)


@pytest.mark.parametrize("code", CODES)
def test_words_are_one_line_and_the_meaning_is_a_sentence(code: str) -> None:
    entry = CODES[code]
    assert re.fullmatch("[a-z]+(-[a-z]+)*", code)
    assert entry.words.strip() == entry.words
    assert "\n" not in entry.words + entry.means
    assert entry.words[-1] not in ".,;:"  # tables and figures end the sentence
    assert entry.means[0].isupper()
    assert entry.means.endswith(".")
    names = {name for _, name, _, _ in string.Formatter().parse(entry.words) if name}
    assert set(entry.examples) <= names
    assert all(re.fullmatch("[a-z][a-z_]*", name) for name in names)
