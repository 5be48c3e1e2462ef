"""What may be asked, and the errors of what may not."""

import numpy as np
import pandas as pd
import pytest

from recbole_hllm.errors import ConfigError, DataError
from recbole_hllm.serving.requests import Request


@pytest.mark.parametrize(
    "items", [[1, 50], (1, "50"), np.array([1, 50]), pd.Series([1, 50]), iter(["1", 50]), range(1, 51, 49)]
)
def test_ids_become_texts_whatever_holds_them(items):
    assert Request(items).items == ("1", "50")


def test_all_ids_become_texts():
    request = Request(user=7, exclude=[3], among=[np.int64(4)], k=np.int32(5))
    assert (request.user, request.exclude, request.among, request.k) == ("7", ("3",), ("4",), 5)
    assert Request().among is None and Request(among=[]).among == ()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"items": "1234"}, "items: '1234' is not a list"),
        ({"items": 5}, "items: '5' is not a list"),
        ({"items": {"1": 2}}, "is not a list"),
        ({"exclude": b"12"}, "exclude: "),
        ({"among": "12"}, "among: '12' is not a list"),
        ({"texts": "a title"}, "texts: 'a title' is not a list"),
        ({"texts": {"title": "a"}}, "texts: "),
        ({"texts": [3]}, "texts: '3' is neither a text nor fields"),
        ({"items": [1], "times": "5"}, "times: '5' is not a list"),
        ({"items": [1], "times": ["monday"]}, "times: not a number of seconds since 1970"),
        ({"items": [1], "times": [None]}, "times: not a number"),
        ({"items": [1], "times": [float("nan")]}, "times: nan is no number of seconds"),
        ({"items": [1], "times": [10**400]}, "times: not a number"),
        ({"items": [1], "times": [-1e300]}, "times: -1e[+]300 is no number"),
        ({"items": [1, 2], "texts": ["a"], "times": [1, 2]}, "times: 2 of them for 3 items and texts"),
        ({"items": [1], "at": float("inf")}, "at: inf is no number"),
        ({"items": [1], "at": "now"}, "at: not a number"),
    ],
)  # fmt: skip
def test_what_is_no_list_and_no_time_is_told(wrong, why):
    with pytest.raises(DataError, match=why):
        Request(**wrong)


@pytest.mark.parametrize("k", [0, -1, 2.0, "10", None])
def test_k_is_a_positive_whole_number(k):
    with pytest.raises(ConfigError, match="k: .* is no positive number of items"):
        Request([1], k=k)
