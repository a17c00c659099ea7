"""The list of slow tests names tests that there are."""

import pathlib
import re

import pytest

HERE = pathlib.Path(__file__).parent
LINES = (HERE / "slow.txt").read_text().splitlines()


def test_the_list_is_sorted_and_without_repetition():
    assert sorted(set(LINES)) == LINES


@pytest.mark.parametrize("line", LINES)
def test_it_names_a_test(line):
    file, name = re.match(r"tests/(\w+\.py)::(\w+)", line).groups()
    assert f"def {name}(" in (HERE / file).read_text()
