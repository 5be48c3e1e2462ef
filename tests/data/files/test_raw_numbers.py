"""Columns of large numbers that a model would multiply embeddings by are named."""

import pytest

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # RecBole's

HEADER = "user_id:token\titem_id:token\tlabel:float\ttimestamp:float"
NUMBERS = {"numerical_features": ["year", "price", "stars"], "load_col": None}


@pytest.fixture
def warned(write_dataset, built, tmp_path, caplog):
    """What the log says of columns of numbers: years near 2000, lists of prices up to 30, and stars up to 5."""

    def read(model="FM", **keys):
        rows = [(f"u{user}", f"i{item}", (user + item) % 2, 10 * item + user) for user in range(4) for item in range(6)]
        items = [(f"i{item}", 1990 + item, f"{item} {5 * item + 5}", item % 6) for item in range(6)]
        header = "item_id:token\tyear:float\tprice:float_seq\tstars:float"
        write_dataset(tmp_path, "toy", rows, items=(header, items), header=HEADER)
        caplog.clear()
        built(model, **{**NUMBERS, **keys})
        return [message for message in caplog.messages if message.startswith("numerical_features")]

    return read


@pytest.mark.parametrize("model", ["FM", "DeepFM", "DIN", "DIEN"])
def test_large_numbers_are_named(warned, model):
    (said,) = warned(model)
    assert "year (up to 1995), price (up to 30): embeddings are multiplied" in said
    assert "normalize_all: True, or normalize_field: ['year', 'price']" in said and "stars" not in said


@pytest.mark.parametrize(
    "keys",
    [
        {"normalize_all": True}, {"normalize_field": ["year", "price"]}, {"numerical_features": ["stars"]},
        {"numerical_features": []},
        {"numerical_features": ["year", "stars"], "discretization": {"year": {"method": "ED", "bucket": 4}}},
    ],
    ids=str,
)  # fmt: skip
def test_small_numbers_and_those_brought_to_0_to_1_are_not(warned, keys):
    assert warned(**keys) == []


def test_what_is_left_as_it_is(warned):
    (said,) = warned(normalize_field=["year"])
    assert said.startswith("numerical_features: price (up to 30): ")


@pytest.mark.parametrize("model", ["SASRec", "BPR", "Pop", "HLLM"])
def test_models_that_read_no_numbers_are_not_warned_of_them(warned, model):
    assert warned(model) == []


def test_models_of_selected_features_are_warned(warned):
    (said,) = warned("SASRecF", selected_features=["year"])
    assert "year (up to 1995)" in said
