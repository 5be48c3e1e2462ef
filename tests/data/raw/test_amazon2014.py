"""Amazon 2014: ratings without a header, Python literals, and the filter of Books."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hllm.data.raw.conversion import convert
from recbole_hllm.errors import DataError

RATINGS = "A39HTATAQ9V7YF,0205616461,5.0,1369699200\nA3JM6GV9MNOF9X,0558925278,3.0,1355443200\n"
META = (
    "{'asin': '0205616461', 'description': 'One\\n\\ntwo  \"three\"', 'title': \"Don't &amp; do\", "
    "'price': 12.5, 'categories': [['Books', 'Art'], ['Books', 'Film, TV']], 'salesRank': {'Books': 4}}\n"
    "{'asin': '0558925278', 'imUrl': 'x'}\n{'asin': '0737104473', 'title': 'not rated'}\n"
)


def test_ratings_and_literals(converted):
    found = converted("amazon2014", {"ratings_Books.csv": RATINGS, "meta_Books.json": META})
    assert found.inter == [
        "item_id:token\tuser_id:token\trating:float\ttimestamp:float",
        "0205616461\tA39HTATAQ9V7YF\t5.0\t1369699200",
        "0558925278\tA3JM6GV9MNOF9X\t3.0\t1355443200",
    ]
    assert found.item == [
        "item_id:token\ttitle:token_seq\tdescription:token_seq",
        '0205616461\tDon\'t &amp; do\tOne two "three"',
        "0558925278\t\t",
    ]


def test_metadata_of_items_without_ratings_are_counted(converted):
    files = {"ratings_Books.csv": RATINGS, "meta_Books.json": META + "{'asin': '0737104474', 'title': broken\n"}
    rows = converted("amazon2014", files).facts["item_rows"]
    assert (rows["read"], rows["left_out"], rows["malformed"]) == (4, {"no interactions": 2}, 0)
    rows = converted("amazon2014", files, all_items=True, overwrite=True).facts["item_rows"]
    assert (rows["read"], rows["written"], rows["malformed"]) == (3, 3, 1)


def test_more_columns(converted):
    files = {"ratings_Books.csv": RATINGS, "meta_Books.json": META}
    found = converted("amazon2014", files, keep="categories,price")
    assert found.item[1].split("\t")[3:] == ["Books, Art, Film, TV", "12.5"]


def test_reviews(converted):
    review = (
        '{"reviewerID": "A1", "asin": "0205616461", "overall": 4.0, "unixReviewTime": 1369699200, "summary": "x"}\n'
    )
    found = converted("amazon2014", {"reviews_Books_5.json": review})
    assert found.inter[1:] == ["0205616461\tA1\t4.0\t1369699200"]
    assert found.files == ["shop.inter", "shop.json"]


def test_the_order_of_2018_is_refused(converted):
    with pytest.raises(DataError, match="'0205616461' is an item; the data of 2014 begin with the user"):
        converted("amazon2014", {"ratings_Books.csv": "0205616461,A39HTATAQ9V7YF,5.0,1369699200\n"})


def test_a_literal_that_calls_something_is_malformed(converted, tmp_path):
    evil = f"{{'asin': open('{tmp_path}/made', 'w')}}\n"
    found = converted("amazon2014", {"ratings_Books.csv": RATINGS, "meta_Books.json": evil + META})
    assert found.facts["item_rows"]["malformed"] == 1
    assert "neither JSON" in found.facts["item_rows"]["lines"][0]["reason"]
    assert not (tmp_path / "made").exists()


def slowly(rows):
    """The official preprocessing of Books, as it is described."""
    users, items = (Counter(row[place] for row in rows) for place in (0, 1))
    rows = [row for row in rows if users[row[0]] >= 5 and items[row[1]] >= 5]
    left = Counter(row[0] for row in rows)
    return [row for row in rows if left[row[0]] >= 5]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("vwxyz")), min_size=20, max_size=80))
def test_the_filter_of_books_is_the_official_preprocessing(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("books")
    rows = [(f"A{user}", f"B{item}", number) for number, (user, item) in enumerate(pairs)]
    raw = folder / "ratings_Books.csv"
    raw.write_text("".join(f"{user},{item},1.0,{number}\n" for user, item, number in rows))
    expected = [f"{item}\t{user}\t1.0\t{number}" for user, item, number in slowly(rows)]
    if not expected:
        with pytest.raises(DataError, match="no interaction of .* is left"):
            convert("amazon2014", [str(raw)], to=str(folder / "shop"), filter="hllm_books")
        assert not list(folder.glob("shop/*"))
        return
    facts = convert("amazon2014", [str(raw)], to=str(folder / "shop"), filter="hllm_books")
    assert (folder / "shop" / "shop.inter").read_text().splitlines()[1:] == expected
    assert facts["interactions"]["read"] == len(rows)
    assert sum(facts["interactions"]["left_out"].values()) == len(rows) - len(expected)


def test_items_are_not_counted_again(converted):
    """A9 has 5 ratings, 4 of them of rare items, so it goes; B6 keeps the 4 ratings that are left of its 5."""
    often = [(f"A{user}", f"B{item}") for user in range(5) for item in range(1, 6)]
    rows = often + [(f"A{user}", "B6") for user in (0, 1, 2, 3, 9)] + [("A9", f"rare{item}") for item in range(4)]
    raw = "".join(f"{user},{item},1.0,1000000000\n" for user, item in rows)
    found = converted("amazon2014", {"ratings_Books.csv": raw}, filter="hllm_books")
    assert len(found.inter) - 1 == 29 == len(slowly(rows))
    assert sum(line.startswith("B6\t") for line in found.inter) == 4 and not any("A9" in line for line in found.inter)
