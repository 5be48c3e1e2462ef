"""PixelRec's CSV files: quoted texts with commas, quotation marks and line breaks, and missing ones."""

import pytest

from recbole_hllm.errors import ConfigError, DataError

COUNTERS = "view_number,comment_number,thumbup_number,share_number,coin_number,favorite_number,barrage_number"
INTER = "item_id,user_id,timestamp\ni7,u2,1605059546\ni15,u44,1628914341\ni7,u44,1628914342\ni9,u2,1628914343\n"
ITEMS = f'''item_id,{COUNTERS},title,tag,description
i7,799668.0,739.0,8050.0,220.0,84.0,1049.0,510.0,"A turtle, ""mine""",Pet Reptiles,"Line one
line  two"
i15,1.0,2.0,3.0,4.0,5.0,6.0,7.0,,,
i8,1.0,2.0,3.0,4.0,5.0,6.0,7.0,nobody saw this,Tag,
'''


def test_interactions_and_texts(converted):
    found = converted("pixelrec", {"a/Pixel200K.csv": INTER, "b/Pixel200K.csv": ITEMS})
    assert found.inter == [
        "item_id:token\tuser_id:token\ttimestamp:float", "i7\tu2\t1605059546", "i15\tu44\t1628914341",
        "i7\tu44\t1628914342", "i9\tu2\t1628914343",
    ]  # fmt: skip
    assert found.item == [
        "item_id:token\ttitle:token_seq\ttag:token\tdescription:token_seq",
        'i7\tA turtle, "mine"\tPet Reptiles\tLine one line two',
        "i15\t\t\t",
    ]
    rows = found.facts["item_rows"]
    assert (rows["read"], rows["written"], rows["left_out"]) == (3, 2, {"no interactions": 1})
    assert rows["without_row"] == {"items": 1, "interactions": 1}
    assert (found.facts["users"], found.facts["items"]) == (2, 3)
    assert set(found.facts["times"].values()) == {"seconds"}
    assert found.files == ["shop.inter", "shop.item", "shop.json"]


def test_a_shifted_column_is_reported_with_its_line(converted):
    shifted = "i9,1.0,2.0,3.0,4.0,5.0,6.0,7.0,a comma, without quotes,Tag,text\n"
    found = converted("pixelrec", {"inter.csv": INTER, "items.csv": ITEMS + shifted})
    (line,) = found.facts["item_rows"]["lines"]
    assert line["line"] == 6 and line["reason"].startswith("12 columns, expected are 11 (item_id, view_number")
    assert found.facts["item_rows"]["malformed"] == 1


def test_counters_are_kept_where_they_are_asked_for(converted):
    found = converted("pixelrec", {"inter.csv": INTER, "items.csv": ITEMS}, keep="view_number")
    assert found.item[1].endswith("\t799668.0") and found.item[0].endswith("view_number:float")


def test_unknown_counter(converted):
    with pytest.raises(ConfigError, match="--keep: 'views' is none of view_number"):
        converted("pixelrec", {"inter.csv": INTER, "items.csv": ITEMS}, keep="views")


def test_several_interaction_files_must_be_told_apart(converted, tmp_path):
    files = {"Pixel1M.csv": INTER, "Pixel200K.csv": INTER, "items.csv": ITEMS}
    with pytest.raises(DataError, match="2 files look like PixelRec's interactions.*--interactions=FILE"):
        converted("pixelrec", files)
    found = converted("pixelrec", files, interactions=str(tmp_path / "raw" / "Pixel1M.csv"))
    assert len(found.inter) == 5


def test_items_of_another_id_space_are_an_error(converted):
    items = ITEMS.replace("\ni", "\n")
    with pytest.raises(DataError, match="no row of .*items.csv is of an item with interactions, such as 'i"):
        converted("pixelrec", {"inter.csv": INTER, "items.csv": items})
