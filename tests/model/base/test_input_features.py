"""Time, item id and action at HLLM's input: what they change, and on which data they are refused."""

import pytest
import torch

from recbole_hllm import Config, create_dataset, data_preparation
from recbole_hllm.data.rows.columns import EVENT_ACTIONS, EVENT_TIME, EVENT_TIMES
from recbole_hllm.errors import ConfigError, DataError, ModelError

START = 874_965_758  # 1997-09-22 22:02:38 UTC
HOUR = 3600
HEADER = "user_id:token\titem_id:token\ttimestamp:float\trating:float"
RATINGS = (5, 3, 4, 3)


@pytest.fixture
def build(tmp_path, write_dataset, tiny_llm):
    """(unit of time, **keys) -> an HLLM on ten users of seven ratings each, and its loaders."""
    items = ("item_id:token\ttitle:token_seq", [(f"i{item}", f"w{item}") for item in range(9)])

    def make(scale=1, start=START, **keys):
        rows = [
            (f"u{user}", f"i{(user + 2 * step) % 9}", scale * (start + HOUR * step), RATINGS[(user + step) % 4])
            for user in range(10)
            for step in range(7)
        ]
        write_dataset(tmp_path, "timed", rows, items, header=HEADER)
        given = {
            "data_path": str(tmp_path), "item_pretrain_dir": tiny_llm("llama"), "user_pretrain_dir": tiny_llm("llama"),
            "user_llm_init": True, "text_keys": ["title"], "MAX_ITEM_LIST_LENGTH": 5, "num_negatives": 6,
            "precision": "fp32", "use_gpu": False, "show_progress": False,
        }  # fmt: skip
        config = Config("HLLM", "timed", config_dict={**given, **keys})
        loaders = data_preparation(config, create_dataset(config))
        torch.manual_seed(0)
        return config.spec.model(config, loaders[0]._dataset).eval(), loaders

    return make


def scores(model, rows):
    with torch.no_grad():
        return model.full_sort_predict(rows)


def test_rows_carry_full_precision_times_and_numbered_actions(build):
    _, (train, valid, _) = build(action_field="rating", MAX_ITEM_LIST_LENGTH=3)
    rows = next(iter(train))
    real = rows["item_id_list"] != 0
    assert rows[EVENT_TIMES].dtype == torch.float64 and (rows[EVENT_TIMES][real] % HOUR == START % HOUR).all()
    assert set(rows[EVENT_ACTIONS][real].tolist()) == {1, 2, 3}, "ratings 3, 4, 5 in rising order"
    assert not rows[EVENT_TIMES][~real].any() and not rows[EVENT_ACTIONS][~real].any()
    rows = next(iter(valid))[0]
    assert (rows[EVENT_TIME] == START + 5 * HOUR).all()
    assert (rows[EVENT_TIMES] == START + torch.tensor([2, 3, 4]) * HOUR).all()
    users = [int(name[1:]) for name in valid._dataset.id2token("user_id", rows["user_id"])]
    assert rows[EVENT_ACTIONS][:, -1].tolist() == [RATINGS[(user + 4) % 4] - 2 for user in users]


@pytest.mark.parametrize(
    "keys, changed",
    [
        ({"time_num": 4}, EVENT_TIMES),
        ({"time_num": 4, "time_of": "next"}, EVENT_TIME),
        ({"action_field": "rating"}, EVENT_ACTIONS),
    ],
)
def test_a_feature_is_read_where_it_is_switched_on(build, keys, changed):
    for switched_on in (True, False):
        other = {"action_field": "rating"} if changed == EVENT_ACTIONS else {}
        model, (_, valid, _) = build(**(keys if switched_on else {}))
        if changed == EVENT_ACTIONS and not switched_on:
            assert changed not in next(iter(valid))[0] and other
            continue
        rows = next(iter(valid))[0]
        before = scores(model, rows)
        rows[changed][:] = 1 if changed == EVENT_ACTIONS else rows[changed] + 5 * HOUR
        assert torch.equal(scores(model, rows), before) != switched_on


def test_minutes_do_not_count_up_to_the_hour(build):
    model, (_, valid, _) = build(time_num=4)
    rows = next(iter(valid))[0]
    before = scores(model, rows)
    rows[EVENT_TIMES] += 60
    assert torch.equal(scores(model, rows), before)


def test_an_id_changes_the_input_and_never_the_item_vector(build):
    model, (_, valid, _) = build(input_item_id=True)
    rows = next(iter(valid))[0]
    before, items = scores(model, rows), model.item_vectors().clone()
    with torch.no_grad():
        model.input_features.item.weight[1:] += 1
    model.train().eval()  # item vectors are made again
    assert torch.equal(model.item_vectors(), items) and not torch.equal(scores(model, rows), before)


def test_features_learn(build):
    model, (train, *_) = build(input_item_id=True, time_num=6, action_field="rating")
    model.train()
    model.calculate_loss(next(iter(train))).backward()
    gradients = {name: p.grad.abs().sum() for name, p in model.named_parameters() if name.startswith("input_features")}
    assert len(gradients) == 2 + 6 + 4 and all(total > 0 for total in gradients.values())
    groups = model.parameter_groups()
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


@pytest.mark.parametrize(
    "how, message",
    [
        ({"start": -START, "scale": 0}, "counters, such as positions"),
        ({"scale": 1000}, "probably milliseconds"),
    ],
)
def test_times_that_are_no_clock_times_are_refused(build, how, message):
    with pytest.raises(DataError, match=f"time_num: .*timed.inter.*{message}"):
        build(time_num=4, **how)
    build(**how)


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"time_of": "target"}, "time_of: 'target' is not one of item, next"),
        ({"time_num": 7}, "time_num: 7 must be at most 6"),
        ({"time_num": -1}, "time_num: -1 must be at least 0"),
        ({"action_field": "click"}, "action_field: .*timed.inter has no column 'click'.*timestamp, "),
    ],
)
def test_wrong_keys(build, keys, message):
    with pytest.raises(ConfigError, match=message):
        build(**keys)


@pytest.mark.parametrize("keys", [{"time_num": 4}, {"action_field": "rating"}])
def test_rows_made_by_hand_need_what_the_model_reads(build, keys):
    model, (_, valid, _) = build(**keys)
    rows = next(iter(valid))[0]
    for field in (EVENT_TIMES, EVENT_ACTIONS):
        rows.interaction.pop(field, None)
    with pytest.raises(ModelError, match="the rows have no event_"):
        scores(model, rows)
