"""Yambda's flat Parquet files, and which of their rows are interactions."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recbole_hllm.errors import ConfigError, DataError


@pytest.fixture
def events(tmp_path):
    (tmp_path / "raw").mkdir()
    table = pa.table({
        "uid": pa.array([100, 100, 200], pa.uint32()), "timestamp": pa.array([0, 5, 10], pa.uint32()),
        "item_id": pa.array([7, 8, 7], pa.uint32()), "is_organic": pa.array([1, 0, 1], pa.uint8()),
        "played_ratio_pct": pa.array([100, 50, None], pa.uint16()), "event_type": ["listen", "listen", "like"],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "raw" / "multi_event.parquet")


def test_all_events(converted, events):
    found = converted("yambda", {}, keep="is_organic")
    assert found.inter == [
        "user_id:token\titem_id:token\ttimestamp:float\tis_organic:float",
        "100\t7\t0\t1",
        "100\t8\t5\t0",
        "200\t7\t10\t1",
    ]
    assert list(found.facts["times"].values()) == ["small numbers, no clock times, as they are"]


@pytest.mark.parametrize(
    "options, times, left",
    [
        ({"events": "listen"}, ["0", "5"], {"--events": 1}),
        ({"min_played": "60"}, ["0"], {"--min_played": 2}),
        ({"organic": True}, ["0", "10"], {"--organic": 1}),
        ({"organic": True, "events": "like"}, ["10"], {"--events": 2}),
    ],
)
def test_which_rows_are_interactions(converted, events, options, times, left):
    found = converted("yambda", {}, **options)
    assert [line.split("\t")[2] for line in found.inter[1:]] == times
    assert found.facts["interactions"]["left_out"] == left


def test_wrong_values(converted, events, tmp_path):
    with pytest.raises(ConfigError, match="--min_played=much must be a number"):
        converted("yambda", {}, min_played="much")
    pq.write_table(pa.table({"uid": [1], "item_id": [2]}), tmp_path / "raw" / "multi_event.parquet")
    with pytest.raises(DataError, match=r"multi_event.parquet: no column 'timestamp' \(there are: uid, item_id\)"):
        converted("yambda", {})
