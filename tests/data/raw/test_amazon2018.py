"""Amazon 2018: the item first, lists, HTML."""

import pytest

from recbole_hllm.errors import DataError

META = (
    '{"category": ["Video Games", "PC"], "description": ["One.", "Two"], "title": "Chess <b>set</b> &amp; more", '
    '"brand": "F", "feature": [], "main_cat": "Toys &amp; Games", "price": "", "asin": "0042000742"}\n'
    '{"asin": "0042000743", "description": [], "title": "<span>x</span><script>var a=1;</script>"}\n'
)
RATINGS = "0042000742,A1C6M8LCIX4M6M,5.0,1123804800\n0042000743,A1C6M8LCIX4M6M,2.0,1123804800\n"


def test_ratings_and_metadata(converted):
    found = converted("amazon2018", {"Games.csv": RATINGS, "meta_Games.json": META}, keep="categories,main_category")
    assert found.inter[1:] == [
        "0042000742\tA1C6M8LCIX4M6M\t5.0\t1123804800",
        "0042000743\tA1C6M8LCIX4M6M\t2.0\t1123804800",
    ]
    assert found.item == [
        "item_id:token\ttitle:token_seq\tdescription:token_seq\tcategories:token_seq\tmain_category:token",
        "0042000742\tChess <b>set</b> &amp; more\tOne. Two\tVideo Games, PC\tToys &amp; Games",
        "0042000743\t<span>x</span><script>var a=1;</script>\t\t\t",
    ]


def test_tags_are_left_out_where_it_is_asked_for(converted):
    found = converted("amazon2018", {"Games.csv": RATINGS, "meta_Games.json": META}, plain=True)
    assert [line.split("\t")[1] for line in found.item[1:]] == ["Chess set &amp; more", "x"]


def test_reviews_and_a_missing_metadata_file(converted):
    review = '{"overall": 5.0, "reviewerID": "A1", "asin": "0042000742", "unixReviewTime": 1514764800}\n'
    found = converted("amazon2018", {"Games_5.json": review})
    assert found.inter[1:] == ["0042000742\tA1\t5.0\t1514764800"]


def test_the_order_of_2014_is_refused(converted):
    files = {"Games.csv": "A1C6M8LCIX4M6M,0042000742,5.0,1123804800\n"}
    found = converted("amazon2018", {"Games.csv": RATINGS})
    assert len(found.inter) == 3
    with pytest.raises(DataError, match="'0042000742' is an item; the data of 2014 begin with the user"):
        converted("amazon2018", files, overwrite=True)
