"""Descriptions of whole data sets, as a run would read them."""

import json
import re
import resource
import signal

import numpy as np
import pytest

from recbole_hllm.description.describe import describe
from recbole_hllm.description.sections import to_console
from recbole_hllm.errors import ConfigError, DataError

CLOCK = 1_000_000_000
NANO = "The timestamps are nanoseconds: the order is right, but split_by: time and time_num need seconds."


@pytest.fixture
def described(write_dataset, tmp_path):
    """(rows, items, keys) -> the description of a data set."""

    def make(rows, items=None, model=None, header=None, **keys):
        write_dataset(tmp_path, "shop", rows, items=items, **({"header": header} if header else {}))
        settings = {"data_path": str(tmp_path), "use_gpu": False, **keys}
        return describe(model, "shop", config_dict=settings, folder=tmp_path / "out")

    return make


def walks(users=6, length=5, step=60):
    places = [(user, place) for user in range(users) for place in range(length)]
    return [(f"u{user}", f"i{(user + place) % 7}", CLOCK + step * place) for user, place in places]


# ---- one that is counted by hand ----


def test_every_number_of_interactions(hand):
    found = hand()
    assert [found[name] for name in ("users", "items", "interactions", "density")] == [4, 5, 13, 0.65]
    assert found["repeated_pairs"] == 1 and found["longer_than_history"] == 0
    assert found["lengths"]["mean"] == 3.25 and found["lengths"]["quantiles"]["median"] == 3
    assert found["lengths"]["histogram"] == [
        {"from": 1, "to": 1, "count": 1}, {"from": 2, "to": 2, "count": 0}, {"from": 3, "to": 3, "count": 1},
        {"from": 4, "to": 5, "count": 2},
    ]  # fmt: skip
    popularity = found["popularity"]
    assert popularity["gini"] == pytest.approx(18 / 65)
    assert [row["interactions"] for row in popularity["top"]] == pytest.approx([4 / 13] * 5 + [8 / 13])
    assert found["cores"] == [
        {"k": 2, "users": 3, "items": 3, "interactions": 10}, {"k": 3, "users": 3, "items": 3, "interactions": 10},
        *({"k": k, "users": 0, "items": 0, "interactions": 0} for k in (5, 10, 20)),
    ]  # fmt: skip


def test_every_number_of_times_and_targets(hand):
    found = hand()
    times, split = found["times"], found["split"]
    assert times["kind"] == "seconds" and times["same"] == 2 / 13
    assert times["kinds"]["seconds"]["first"] == "2001-09-09 01:46:40"
    assert times["kinds"]["seconds"]["last"] == "2001-09-09 01:47:00"
    assert split["train"] == {"interactions": 8, "users": 4}
    assert split["valid"] == {
        "targets": 2, "users": 2, "cold": 0, "cold_items": 0, "new_users": 0, "leaked": 1, "tied": 0,
    }  # fmt: skip
    assert split["test"] == {
        "targets": 3, "users": 3, "cold": 2, "cold_items": 2, "new_users": 0, "leaked": 0, "tied": 1,
    }  # fmt: skip


def test_every_number_of_texts(hand, tiny_llm):
    found = hand(item_pretrain_dir=tiny_llm("bert"), MAX_TEXT_LENGTH=9)["texts"]
    counts = ("rows", "rows_without_interaction", "items", "without_row", "without_text", "too_long")
    assert [found[name] for name in counts] == [5, 1, 5, 1, 1, 2]
    assert [(field["name"], field["filled"]) for field in found["fields"]] == [("title", 3), ("brand", 2)]
    assert found["whole"]["tokens"]["quantiles"]["max"] == 10 and found["shared"]["items"] == 2


def test_what_the_findings_say(hand):
    said = " ".join(hand()["look_at"])
    for words in (
        "Of 4 users, 2 (50 %) have no validation target and 1 (25 %) no test target",
        "0 % of the validation targets and 33 % of the test targets have the same time",
        "50 % of the validation targets and 0 % of the test targets are already in the history",
        "0 % of the validation targets and 67 % of the test targets are items without any training",
        "There are 3 test targets: the standard error of a recall of 0.1 is 0.173",
        "1 of 5 items (20 %) have no row in hand.item",
        "1 of 5 items (20 %) have a row, and nothing",
        "40 % of the items share their text with another, 2 of them 'title: w1 w2. brand: w3'",
    ):
        assert words in said


def test_the_folder_has_the_numbers_and_the_page_and_nothing_is_overwritten(hand, tmp_path):
    found = hand(MAX_TEXT_LENGTH=9)
    kept = json.loads((tmp_path / "out" / "describe.json").read_text())
    assert kept == {key: value for key, value in found.items() if key != "folder"}
    assert kept["keys"] == {"MAX_TEXT_LENGTH": 9}, "and no folder of this machine"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"describe.json", "describe.html"}
    before = (tmp_path / "out" / "describe.json").read_bytes()
    with pytest.raises(ConfigError, match="out already holds a description"):
        hand()
    assert (tmp_path / "out" / "describe.json").read_bytes() == before


# ---- keys are those of a run ----


def test_filters_and_split_are_those_of_a_run(hand):
    found = hand(rm_dup_inter="first", user_inter_num_interval="[3,inf)", eval_args={"split": {"LS": "test_only"}})
    assert (found["users"], found["interactions"], found["repeated_pairs"]) == (3, 11, 0)
    assert found["split"]["valid"]["targets"] == 0 and found["split"]["test"]["targets"] == 3
    assert found["split_by"] == "LS test_only, inside each user"
    assert any(line.startswith("There is no validation target") for line in found["look_at"])


@pytest.mark.parametrize("model", ["Pop", "SASRec", "BPR", "TextKNN"])
def test_numbers_do_not_depend_on_the_model(hand, tmp_path, model):
    first, other = hand(), hand(model=model, folder=tmp_path / "other")
    assert other.pop("model") == model and first.pop("model") == "HLLM"
    assert other == {**first, "folder": other["folder"]}


def test_text_keys_of_a_model_and_of_none(hand, tmp_path):
    assert [field["name"] for field in hand(text_keys="brand")["texts"]["fields"]] == ["brand"]
    other = hand(tmp_path / "other", **{"HLLM.text_keys": ["brand", "title"]})
    assert [field["name"] for field in other["texts"]["fields"]] == ["brand", "title"]
    third = hand(model="SASRec", text_keys=["brand"], folder=tmp_path / "third")
    assert [field["name"] for field in third["texts"]["fields"]] == ["brand"]


def test_a_tokenizer_that_is_not_installed_is_said(hand):
    found = hand(item_pretrain_dir="package:no_such_package/model")
    assert found["texts"]["tokenizer"] is None and found["texts"]["whole"]["words"]["mean"] > 0
    assert "no_such_package" in found["texts"]["no_tokens"]
    assert any(line.startswith("Tokens are not counted: ") and "no_such_package" in line for line in found["look_at"])
    assert "Words only, no tokens" in to_console(found)


@pytest.mark.parametrize(
    "split, how, each",
    [
        ({"split": {"RS": [0.6, 0.2, 0.2]}}, "RS [0.6, 0.2, 0.2], inside each user", True),
        ({"split": {"RS": [0.6, 0.2, 0.2]}, "group_by": "none"}, "RS [0.6, 0.2, 0.2], in time order", False),
        ({"split": {"TS": [0.6, 0.2, 0.2]}}, "TS [0.6, 0.2, 0.2], in time order", False),
    ],
)
def test_other_splits(described, split, how, each):
    found = described(walks(), eval_args={"order": "TO", "mode": "full", "group_by": "user", **split})
    assert (found["split_by"], found["each_user"]) == (how, each)
    parts = found["split"]
    assert sum(part.get("interactions", part.get("targets")) for part in parts.values()) == found["interactions"]
    assert not any("too short" in line for line in found["look_at"]) or each


def test_labelled_rows(described):
    rows = [(*row[:2], place % 2, row[2] + place) for place, row in enumerate(walks(8))]
    header = "user_id:token\titem_id:token\tlabel:float\ttimestamp:float"
    found = described(rows, model="DIN", header=header)
    assert found["split_by"] == "RS [0.8, 0.1, 0.1], in time order"
    parts = found["split"].values()
    assert sum(part.get("interactions", part.get("targets")) for part in parts) == found["interactions"] == 40


def test_ready_made_histories(write_dataset, tmp_path):
    header = "user_id:token\titem_id:token\titem_id_list:token_seq\ttimestamp:float"
    for name, rows in {
        "train": [("u", "b", "a", 1), ("u", "c", "a b", 2), ("v", "c", "b", 1)],
        "valid": [("u", "b", "a b c", 3), ("v", "a", "b c", 2)],
        "test": [("u", "d", "a b c b", 4), ("v", "b", "b c a", 3)],
    }.items():
        write_dataset(tmp_path, "made", rows, header=header, suffix=f"{name}.inter")
    keys = {"data_path": str(tmp_path), "benchmark_filename": ["train", "valid", "test"],
            "alias_of_item_id": ["item_id_list"], "use_gpu": False}  # fmt: skip
    found = describe(None, "made", config_dict=keys, folder=tmp_path / "out")
    assert [found[name] for name in ("users", "items", "interactions", "repeated_pairs")] == [2, 4, 7, 1]
    assert found["split_by"] == "the files train, valid, test" and found["ready_made_histories"]
    assert [found["split"][phase]["leaked"] for phase in ("valid", "test")] == [1, 1]
    assert [found["split"][phase]["cold"] for phase in ("valid", "test")] == [1, 1]
    assert found["split"]["test"]["tied"] is None
    assert "A row of the ready-made histories" in to_console(found)
    assert any("are already in the history" in line for line in found["look_at"])
    assert "--rm_dup_inter" not in to_console(found) and "num_interval" not in to_console(found), "refused for files"


# ---- data that something is wrong with ----


def test_without_an_item_file(described):
    found = described(walks())
    assert found["texts"] is None and "There is no .item file: models that read texts cannot run." in found["look_at"]
    assert "There is no .item file." in to_console(found)


def test_an_item_file_without_texts(described):
    found = described(walks(), items=("item_id:token\tprice:float", [("i0", 3)]))
    assert found["texts"]["fields"] == [] and found["texts"]["without_row"] == 6
    assert any("no column of texts" in line for line in found["look_at"])
    to_console(found)


def test_empty_texts(described):
    found = described(walks(), items=("item_id:token\ttitle:token_seq", [(f"i{item}", "") for item in range(7)]))
    assert found["texts"]["without_text"] == 7 and found["texts"]["whole"]["words"] is None
    assert any(line.startswith("7 of 7 items (100 %) have a row, and nothing") for line in found["look_at"])
    assert "Length in words" not in to_console(found)


@pytest.mark.parametrize(
    "time, said",
    [
        (lambda place: 5, "All timestamps are the same"),
        (lambda place: place % 5, "The timestamps are positions inside each user"),
        (lambda place: 1000 + place, "The timestamps are no times since 1970 in any unit"),
        (lambda place: (CLOCK + place) * 1000, "The timestamps are milliseconds"),
        (lambda place: (CLOCK + place) * 10**6, "The timestamps are microseconds"),
        (lambda place: (CLOCK + place) * 10**9, f"{NANO} Divide the column by 1,000,000,000."),
        (lambda place: (CLOCK + place) * (1000 if place == 7 else 1), "The timestamps are mixed: 97 % seconds, 3.3 %"),
    ],
)
def test_times_that_are_no_seconds(described, time, said):
    rows = [(user, item, time(place)) for place, (user, item, _) in enumerate(walks())]
    assert any(line.startswith(said) for line in described(rows)["look_at"])


def test_one_user(described):
    found = described(walks(users=1))
    assert found["users"] == 1 and found["split"]["test"]["targets"] == 1 and found["popularity"]["gini"] == 0


def test_nobody_to_test(described):
    found = described(walks(length=1))
    assert found["split"] is None and "no user is left to test" in found["split_error"]
    assert any(line.startswith("No model can be tested: ") for line in found["look_at"])
    assert found["cores"][0] == {"k": 2, "users": 0, "items": 0, "interactions": 0}
    assert re.search(r"It fails: .*no user is left", to_console(found))


def test_errors_of_the_data_are_those_of_a_run_and_leave_no_folder(described, tmp_path):
    with pytest.raises(DataError, match=r"shop\.inter, line 3, column timestamp: 'x' is not a number"):
        described([*walks()[:1], ("u0", "i1", "x")])
    assert not (tmp_path / "out").exists()


def test_a_split_that_is_none_is_an_error_of_the_keys(described, tmp_path):
    with pytest.raises(ConfigError, match="eval_args: split LS: 'nonsense'"):
        described(walks(), eval_args={"split": {"LS": "nonsense"}})
    assert not (tmp_path / "out").exists()


def test_a_folder_that_was_there_stays(described, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="no column 'colour' .text_keys."):
        described(walks(), items=("item_id:token\ttitle:token_seq", [("i0", "x")]), text_keys="colour")
    assert list((tmp_path / "out").iterdir()) == []
    described(walks())
    assert (tmp_path / "out" / "describe.html").is_file()


def test_a_full_disk_leaves_nothing(hand, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hand(folder=tmp_path / "before")  # whatever else is written the first time
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(ConfigError, match="to: cannot write .*describe.json: File too large"):
            hand()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("items, said", [(99, False), (100, True)])
def test_the_most_popular_item_is_one_per_cent_from_a_hundred_items_on(described, items, said):
    rows = [("u", f"i{max(place - 200, 0)}", CLOCK + place) for place in range(200 + items)]
    found = described(rows)
    assert found["items"] == items
    assert any("most popular 1 % of the items" in line for line in found["look_at"]) is said


def test_a_folder_that_cannot_be_made(hand, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="to: cannot write .*file/out: Not a directory"):
        hand(folder=tmp_path / "file" / "out")


def test_two_rows_of_one_item(described):
    items = ("item_id:token\ttitle:token_seq", [("i0", "x"), ("i1", "y"), ("i0", "z")])
    with pytest.raises(DataError, match=r"shop\.item, line 4"):
        described(walks(), items=items)


def test_numbers_are_plain(hand):
    def leaves(value):
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return [value] if inner is None else [leaf for one in inner for leaf in leaves(one)]

    assert not any(isinstance(leaf, np.generic) for leaf in leaves(hand()))
