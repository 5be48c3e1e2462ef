"""HLLM with negatives that cost no item to encode."""

import pytest
import torch
from recbole.data.interaction import Interaction
from safetensors import safe_open

from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.next_item import History
from recbole_hllm.nn.losses import info_nce
from recbole_hllm.runs.export import export_model
from recbole_hllm.runs.run import run

N_ITEMS = 12  # of the data set in conftest.py
WINDOWS = torch.tensor([[3, 5, 3, 9, 1], [2, 8, 0, 0, 0], [7, 4, 6, 0, 0]])
LIVE = sorted({*WINDOWS.flatten().tolist()} - {0})


def rows(*negatives):
    return Interaction({"item_id_list": WINDOWS, "neg_item_id": torch.tensor([negatives], dtype=torch.long)})


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def test_cached_is_the_loss_over_all_items_with_gradients_of_the_batch(build):
    model, _ = build(negatives="cached", nce_thres=None)
    loss = model.train().calculate_loss(rows(*LIVE[:2]))
    found = gradients(model, loss)

    plain, _ = build(nce_thres=None)
    plain.train()
    with torch.no_grad():
        table = plain.vectors_of(torch.arange(N_ITEMS + 1))
    live = plain.vectors_of(torch.tensor(LIVE))
    table = table.index_copy(0, torch.tensor(LIVE), live)
    outputs = plain.read_by_length(table[WINDOWS[:, :-1]], _history(plain))
    real = WINDOWS[:, 1:] != 0
    ids = torch.arange(1, N_ITEMS + 1)
    targets, target_ids = table[WINDOWS[:, 1:]][real], WINDOWS[:, 1:][real]
    expected = info_nce(outputs[real], targets, table[1:], target_ids, ids, plain.logit_scale, None).loss
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    wanted = gradients(plain, expected)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def _history(model):
    return History.of_windows(WINDOWS, rows(10))


def test_only_live_items_are_encoded_after_the_first_step(build, encoded):
    model, _ = build(negatives="cached", live_items=4, cache_refresh_steps=3, cache_refresh_items=2)
    seen = []
    for _ in range(4):
        encoded.clear()
        model.train().calculate_loss(rows(10, 11)).backward()
        seen.append(sum(encoded))
        assert model.loss_terms["distinct_items"] == 4
    assert seen == [N_ITEMS + 4, 4, 4, 4 + 2]
    assert 0 < model.loss_terms["cache_age"] < 4


def test_live_items_with_drawn_negatives(build, encoded):
    model, _ = build(live_items=5)
    model.train().calculate_loss(rows(10, 11))
    assert sum(encoded) == N_ITEMS + 5
    assert model.loss_terms["surviving_negatives"] <= 2


@pytest.mark.parametrize(
    "keys",
    [
        {"negatives": "cached", "live_items": 5},
        {"num_negatives": 0, "in_batch_negatives": True},
        {"cross_batch_negatives": 20, "cross_batch_correction": True},
        {"in_batch_negatives": True, "cross_batch_negatives": 20},
    ],
)
def test_runs_end_to_end(settings, tmp_path, keys):
    result = run(config_dict=settings(**keys), run_dir=tmp_path / "run")
    assert 0 <= result["test_result"]["ndcg@5"] <= 1
    again = run(config_dict={"evaluate_only": True}, run_dir=tmp_path / "run")
    assert again["test_result"] == result["test_result"]


def test_an_export_has_no_cache_and_starts_a_training_with_one(build, tmp_path):
    keys = {"negatives": "cached", "live_items": 5}
    model, _ = build(**keys)
    model.train().calculate_loss(rows(10, 11))
    export_model(model, tmp_path / "export")
    with safe_open(tmp_path / "export" / "training.safetensors", framework="pt") as file:
        assert not [name for name in file.keys() if name.startswith(("cache", "further"))]
    other, _ = build(**keys, pretrained_hllm=str(tmp_path / "export"))
    history = Interaction({"item_id_list": WINDOWS[:, :4], "item_length": torch.tensor([4, 2, 3])})
    with torch.no_grad():
        scores = [one.eval().full_sort_predict(history) for one in (model, other)]
    torch.testing.assert_close(*scores, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"negatives": "cached", "item_llm_tuning": "frozen"}, "negatives: cached is of an HLLM whose Item LLM"),
        ({"live_items": 3, "item_llm_tuning": "frozen"}, "live_items: with item_llm_tuning: frozen"),
        ({"cache_refresh_steps": 3}, "cache_refresh_steps: there is no cache"),
        ({"negatives": "cached", "cache_refresh_items": 3}, "say after how many steps"),
        ({"negatives": "cached", "in_batch_negatives": True}, "join shared ones"),
        ({"negatives": "per_position", "cross_batch_negatives": 9}, "join shared ones"),
        ({"cross_batch_correction": True}, "nothing is kept of earlier batches"),
        ({"negatives": "cached", "num_negatives": 0}, "leaves nothing to compare with"),
        ({"num_negatives": 0}, "leaves nothing to compare with"),
        ({"num_negatives": 0, "cross_batch_negatives": 9}, "leaves nothing to compare with"),
    ],
)
def test_keys_that_do_not_fit_together(build, keys, words):
    with pytest.raises(ConfigError, match=words):
        build(**keys)


def test_a_model_of_ids_has_no_cache(id_model):
    with pytest.raises(ConfigError, match="negatives: cached"):
        id_model("SASRecNCE", negatives="cached")


def test_a_model_of_ids_takes_further_negatives(id_model):
    model, loaders = id_model("SASRecNCE", in_batch_negatives=True, cross_batch_negatives=50)
    counts = torch.as_tensor(loaders[0]._dataset.rows.item_counts()).double()
    share = counts / counts.sum() * (len(counts) - 1)
    torch.testing.assert_close(model.further.of_item[counts > 0], -share[counts > 0].log().float())
    for batch in loaders[0]:
        model.train().calculate_loss(batch).backward()
    assert model.loss_terms["memory_age"] > 0
