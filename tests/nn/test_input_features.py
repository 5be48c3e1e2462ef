from datetime import datetime, timezone

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.nn.input_features import CALENDAR_SIZES, InputFeatures, TimeFeatures, calendar


@given(st.datetimes(datetime(1, 1, 1), datetime(2099, 12, 31, 23, 59, 59), timezones=st.just(timezone.utc)))
def test_the_calendar_is_pythons(moment):
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)  # a float64 of so many seconds has no finer
    seconds = torch.tensor((moment - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds(), dtype=torch.float64)
    expected = [moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second]
    assert calendar(seconds).tolist() == expected


def test_years_beyond_the_table_are_its_last():
    far = torch.tensor([8e9, 9e10], dtype=torch.float64)  # 2223 and 4821
    assert calendar(far)[:, 0].tolist() == [CALENDAR_SIZES[0] - 1] * 2


def test_time_is_the_perceptron_of_its_parts():
    features = TimeFeatures(5, time_num=4, width=3)
    seconds = torch.tensor([[874965758.0, 1.0]], dtype=torch.float64)  # 1997-09-22 22:02:38
    parts = [table.weight[value] for table, value in zip(features.tables, (1997, 9, 22, 22), strict=True)]
    torch.testing.assert_close(features(seconds)[0, 0], features.mlp(torch.cat(parts)))
    later = torch.tensor([[874965758.0 + 60, 1.0]], dtype=torch.float64)
    assert torch.equal(features(later), features(seconds)), "minutes do not count with time_num 4"
    assert not torch.equal(features(later + 3600), features(seconds))


@pytest.mark.parametrize("switched_on", [(), ("item",), ("action",), ("time",), ("item", "action", "time")])
def test_features_add_up(switched_on):
    sizes = {"item": {"n_items": 9}, "action": {"n_actions": 4}, "time": {"time_num": 6, "time_width": 2}}
    features = InputFeatures(3, **{key: value for name in switched_on for key, value in sizes[name].items()})
    vectors, items, actions = torch.randn(2, 4, 3), torch.randint(1, 9, (2, 4)), torch.randint(1, 4, (2, 4))
    seconds = torch.rand(2, 4, dtype=torch.float64) * 1e9
    expected = vectors.clone()
    for name, value in (("item", items), ("action", actions), ("time", seconds)):
        if name in switched_on:
            expected += getattr(features, name)(value)
    torch.testing.assert_close(features(vectors, items, seconds, actions), expected)


def test_padding_adds_nothing_of_id_and_action():
    features = InputFeatures(3, n_items=9, n_actions=4)
    padding = torch.zeros(1, 2, dtype=torch.long)
    assert torch.equal(features(torch.zeros(1, 2, 3), padding, None, padding), torch.zeros(1, 2, 3))
