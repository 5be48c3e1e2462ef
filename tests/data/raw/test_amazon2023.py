"""Amazon 2023: parent_asin, milliseconds, ready splits."""

import pytest

from recbole_hllm.errors import ConfigError, DataError

HEADER = "user_id,parent_asin,rating,timestamp\n"
META = (
    '{"main_category": "All Beauty", "title": "Mist", "features": ["a", "b"], "description": [], "price": null, '
    '"store": "Acme", "categories": ["Beauty", "Hair"], "details": {"x": "y"}, "parent_asin": "B01"}\n'
    '{"title": null, "description": ["one", "two"], "price": 12.5, "store": null, "parent_asin": "B02"}\n'
)


def test_ratings_and_metadata(converted):
    ratings = HEADER + "AE1,B01,5.0,1588687728923\nAE2,B02,1.0,1588687728000\n"
    found = converted("amazon2023", {"B.csv": ratings, "meta_B.jsonl": META}, keep="features,store,price")
    assert found.inter == [
        "item_id:token\tuser_id:token\trating:float\ttimestamp:float",
        "B01\tAE1\t5.0\t1588687728.923",
        "B02\tAE2\t1.0\t1588687728",
    ]
    assert found.item[1:] == ["B01\tMist\t\ta b\tAcme\t", "B02\t\tone two\t\t\t12.5"]
    assert set(found.facts["times"].values()) == {"milliseconds"}


def test_reviews(converted):
    review = '{"rating": 5.0, "asin": "B0", "parent_asin": "B01", "user_id": "AE1", "timestamp": 1588687728923}\n'
    found = converted("amazon2023", {"B.jsonl": review, "meta_B.jsonl": META})
    assert found.inter[1:] == ["B01\tAE1\t5.0\t1588687728.923"]
    assert found.item[1:] == ["B01\tMist\t"]


SPLIT = {
    "B.train.csv": "AE1,B01,5.0,1588687728923,\nAE1,B02,5.0,1588687728924,B01\n",
    "B.valid.csv": "AE1,B03,5.0,1588687728925,B01 B02\n", "B.test.csv": "AE1,B04,5.0,1588687728926,B01 B02 B03\n",
}  # fmt: skip


def test_a_ready_split_becomes_three_files(converted):
    files = {name: HEADER.replace("\n", ",history\n") + rows for name, rows in SPLIT.items()}
    found = converted("amazon2023", {**files, "meta_B.jsonl": META})
    assert found.files == ["shop.item", "shop.json", "shop.test.inter", "shop.train.inter", "shop.valid.inter"]
    assert found.lines["shop.train.inter"][1:] == ["B01\tAE1\t5.0\t1588687728.923", "B02\tAE1\t5.0\t1588687728.924"]
    assert found.lines["shop.test.inter"][1:] == ["B04\tAE1\t5.0\t1588687728.926"]
    assert found.facts["item_rows"]["without_row"] == {"items": 2, "interactions": 2}
    found = converted("amazon2023", {**files, "meta_B.jsonl": META}, history=True, overwrite=True)
    assert found.lines["shop.test.inter"] == [
        "item_id:token\tuser_id:token\trating:float\ttimestamp:float\titem_id_list:token_seq",
        "B04\tAE1\t5.0\t1588687728.926\tB01 B02 B03",
    ]


def test_a_split_with_a_part_missing(converted):
    with pytest.raises(DataError, match=r"one file \.valid\.csv beside the others, found: none"):
        converted("amazon2023", {name: HEADER + "a,b,1.0,1\n" for name in ("B.train.csv", "B.test.csv")})


def test_a_ready_split_is_not_filtered(converted):
    files = {name: HEADER + "a,b,1.0,1588687728926\n" for name in SPLIT}
    with pytest.raises(ConfigError, match="--filter: a ready split is not filtered"):
        converted("amazon2023", files, filter="hllm_books")


def test_only_a_ready_split_has_histories(converted):
    with pytest.raises(ConfigError, match="--history: only the files of a ready split"):
        converted("amazon2023", {"B.csv": HEADER}, history=True)
