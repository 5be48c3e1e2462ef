import pytest
import torch
import yaml

from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.nn.hstu import time_buckets

ITEMS = torch.tensor([[3, 5, 3, 9], [2, 0, 0, 0]])
LENGTHS = torch.tensor([4, 1])
TIMES = torch.tensor([[1e9, 1e9 + 60, 1e9 + 4000, 1.1e9], [1e9, 0, 0, 0]], dtype=torch.float64)


def rows(times=TIMES, asked=(1.2e9, 1e9 + 5)):
    made = {"item_id_list": ITEMS, "item_length": LENGTHS}
    if times is not None:
        made |= {"event_time_list": times, "event_time": torch.tensor(asked, dtype=torch.float64)}
    return made


def spread(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model.eval()


@pytest.mark.parametrize("implementation", ["meta", "hllm"])
def test_a_history_goes_through_input_and_blocks(id_model, implementation):
    model = spread(id_model("HSTU", implementation=implementation, n_layers=3)[0])
    scale = 8**0.5 if implementation == "meta" else 1
    x = model.item_embedding.weight[ITEMS[:1]] * scale + model.positions.weight
    next_times = torch.tensor([[1e9 + 60, 1e9 + 4000, 1.1e9, 1.2e9]], dtype=torch.float64)
    for block in model.blocks:
        x = block(x, time_buckets(TIMES[:1], next_times) if implementation == "meta" else None)
    with torch.no_grad():
        torch.testing.assert_close(model.user_vectors(rows())[0], x[0, -1], rtol=0, atol=1e-5)


def test_meta_looks_at_times_and_hllm_at_none(id_model):
    for implementation, differs in (("meta", True), ("hllm", False)):
        model = spread(id_model("HSTU", implementation=implementation)[0])
        with torch.no_grad():
            before, after = (model.user_vectors(rows(asked=asked)) for asked in [(1.2e9, 1e9 + 5), (1.2e9, 1.9e9)])
        assert torch.equal(before[0], after[0])
        assert torch.equal(before[1], after[1]) is not differs


def test_rows_without_times(id_model):
    with pytest.raises(ModelError, match="implementation meta looks at times.*event_time_list.*implementation: hllm"):
        id_model("HSTU")[0].user_vectors(rows(times=None))
    assert id_model("HSTU", implementation="hllm")[0].user_vectors(rows(times=None)).isfinite().all()


def test_times_that_are_positions_are_times_too(id_model):
    """The times of this data set count 0, 1, 2, ...: no clock, but an order."""
    model, (train, _, test) = id_model("HSTU")
    batch = next(iter(train))
    assert set(batch["event_time_list"].flatten().tolist()) <= set(range(10))
    loss = model.calculate_loss(batch)
    loss.backward()
    assert loss.isfinite() and all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert model.eval().full_sort_predict(next(iter(test))[0]).isfinite().all()


def test_input_dropout_is_of_variant_meta(id_model):
    for implementation in ("meta", "hllm"):
        model, _ = id_model("HSTU", implementation=implementation, hidden_dropout_prob=0.5)
        model.blocks = torch.nn.ModuleList()  # leaves the input
        with torch.no_grad():
            first, second = (model.read_history(torch.ones(1, 4, 8), NO_TIMES) for _ in range(2))
        assert torch.equal(first, second) is (implementation == "hllm")
        kept = model.positions.weight + (8**0.5 if implementation == "meta" else 1)
        dropped = (first[0] == 0) if implementation == "meta" else torch.zeros(4, 8, dtype=torch.bool)
        scale = 2 if implementation == "meta" else 1
        torch.testing.assert_close(first[0][~dropped], (kept * scale)[~dropped])
        assert dropped.any() == (implementation == "meta")


class NO_TIMES:
    times = next_times = torch.zeros(1, 4, dtype=torch.float64)


# ---- variants ----


@pytest.mark.parametrize(
    ("keys", "temperature", "nce_thres"),
    [({}, 0.05, None), ({"implementation": "meta"}, 0.05, None), ({"implementation": "hllm"}, None, 0.99),
     ({"implementation": "hllm", "temperature": 0.05}, 0.05, 0.99),
     ({"implementation": "hllm", "nce_thres": None}, None, None), ({"temperature": None, "nce_thres": 0.9}, None, 0.9),
     ({"implementation": "hllm", "HSTU.temperature": 0.1}, 0.1, 0.99)],
)  # fmt: skip
def test_a_variant_has_defaults_that_keys_replace(id_model, keys, temperature, nce_thres):
    model, (train, *_) = id_model("HSTU", **keys)
    assert (train.config["temperature"], train.config["nce_thres"]) == (temperature, nce_thres)
    assert model.nce_thres == nce_thres
    assert ("logit_scale" in dict(model.named_parameters())) is (temperature is None)
    again, (train_again, *_) = id_model("HSTU", **yaml.safe_load(yaml.safe_dump(train.config.settings)))
    assert train_again.config.settings == train.config.settings, "a finished run's keys make the same run"


@pytest.mark.parametrize("implementation", ["HLLM", "metta", "", None, ["meta"], True])
def test_an_unknown_variant(id_model, implementation):
    with pytest.raises(ConfigError, match="implementation"):
        id_model("HSTU", implementation=implementation)


def test_only_meta_has_tables_of_distance_and_time(id_model):
    for implementation, blocks in (("meta", 2), ("hllm", 0)):
        shapes = [parameter.shape for parameter in id_model("HSTU", implementation=implementation)[0].parameters()]
        assert shapes.count((7,)) == shapes.count((129,)) == blocks  # 2 * 4 - 1 distances


def test_hstu_1b_has_the_published_number_of_parameters(id_model):
    """462M of arXiv 2409.12740, without the item table."""
    sizes = {"hidden_size": 2048, "n_layers": 22, "n_heads": 32, "MAX_ITEM_LIST_LENGTH": 50}
    with torch.device("meta"):
        model, _ = id_model("HSTU", implementation="hllm", temperature=0.05, **sizes)
    assert model.item_embedding.weight.is_meta
    count = sum(parameter.numel() for parameter in model.parameters()) - model.item_embedding.weight.numel()
    block = 4 * 2048 * 2048 + 2048 * 2048 + 2048
    assert count == 22 * block + 50 * 2048 == 461_520_896
    assert count == pytest.approx(462e6, rel=0.01)
