"""RecBole's models with a way to run here: whatever they keep, a checkpoint holds it."""

import json

import pytest
import torch

from recbole_hllm import Config, create_dataset, data_preparation, run

# isort: split
from recbole.model import context_aware_recommender, general_recommender
from recbole.utils import ModelType

from recbole_hllm.model.base.recbole_models import sequential_recommender
from recbole_hllm.model.base.user_items import ScoresUserItems
from recbole_hllm.registry import _MENDED, _REFUSED, _USERS, get_spec, model_names
from recbole_hllm.runs.run import load_run

# Those that were always run are in other tests.
HERE = sorted(_MENDED.keys() - {"BERT4Rec", "DGCF", "DIEN", "LINE"})
OF_ITEMS = [name for name in HERE if issubclass(get_spec(name).model, ScoresUserItems)]
TRAINED = [name for name in HERE if get_spec(name).model.type != ModelType.TRADITIONAL]
# With turns and clusters that change within the few epochs of these tests.
OWN = {
    "FEARec": {"n_layers": 2, "contrast": "us_x", "tau": 1.0, "sim": "dot"},
    "S3Rec": {"pretrain_epochs": 2},
    "NCL": {"warm_up_step": 1, "m_step": 2, "num_clusters": 3},
    "RecVAE": {"n_enc_epochs": 1, "hidden_dimension": 8, "latent_dimension": 4},
    "MultiVAE": {"total_anneal_steps": 10, "mlp_hidden_size": [8], "latent_dimension": 4},
    "MacridVAE": {"total_anneal_steps": 10, "encoder_hidden_size": [8], "kfac": 2},
    "DiffRec": {"history_num_per_term": 2, "steps": 3, "dims_dnn": [8]},
    "LDiffRec": {"history_num_per_term": 2, "steps": 3, "dims_dnn": [8], "in_dims": [8], "anneal_steps": 10},
    "ConvNCF": {"embedding_size": 16, "cnn_channels": [1, 4], "cnn_kernels": [4], "cnn_strides": [4]},
    "GCMC": {"gcn_output_dim": 8},
    "NGCF": {"hidden_size_list": [8], "node_dropout": 0.2},
}


@pytest.fixture
def keys_of(settings_of):
    """model -> keys of a run of some steps, three or more an epoch."""

    def make(name):
        size = 5 if name in _USERS else 24
        some = {"epochs": 4, "train_batch_size": size, "state": "critical"}
        return {**settings_of("SASRec"), **some, **OWN.get(name, {})}

    return make


# GRU4RecCPR and SASRecCPR rank more items than there are here.
STOCK = sorted(
    name
    for module in (general_recommender, sequential_recommender, context_aware_recommender)
    for name in dir(module)
    if name[0].isupper() and name not in {*_REFUSED, "GRU4RecCPR", "SASRecCPR"} and name in model_names()
    and get_spec(name).model.type != ModelType.TRADITIONAL
)  # fmt: skip


@pytest.mark.parametrize("name", STOCK)
def test_every_model_computes_in_bf16_or_says_that_it_cannot(keys_of, name, monkeypatch):
    """As ``precision: auto`` has it on hardware with instructions for bf16."""
    monkeypatch.setattr("recbole_hllm.config.parsing.fast_precision", lambda device: "bf16")
    keys = {**keys_of(name), "precision": "auto", "selected_features": ["class"], "item_attribute": "class"}
    if get_spec(name).rows.labelled:
        keys |= {"dataset": "labelled", "metrics": ["AUC"], "valid_metric": "AUC"}
    config = Config(name, config_dict=keys)
    assert config["precision"] == ("bf16" if config.spec.model.AUTOCASTS else "fp32")
    train = data_preparation(config, create_dataset(config))[0]
    model = config.spec.build(config, train._dataset).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=config["precision"] == "bf16"):
        loss = model.calculate_loss(next(iter(train)))
    loss = sum(loss) if isinstance(loss, tuple) else loss
    assert torch.isfinite(loss)
    loss.backward()


@pytest.fixture
def built(keys_of):
    """model -> the model with the weights of its seed, in evaluation mode, and rows of the test."""

    def make(name):
        config = Config(name, config_dict=keys_of(name))
        train, _, test = data_preparation(config, create_dataset(config))
        torch.manual_seed(0)
        return config.spec.build(config, train._dataset).eval(), next(iter(test))[0]

    return make


@pytest.mark.parametrize("name", HERE)
def test_an_evaluation_of_the_checkpoint_is_the_one_before_it(keys_of, tmp_path, name):
    result = run(name, config_dict=keys_of(name), run_dir=tmp_path / "run")
    files = {file.suffix for file in (tmp_path / "run" / "best").iterdir()}
    assert files <= {".safetensors", ".json"}, "no pickle"
    again = run(name, config_dict={**keys_of(name), "evaluate_only": True}, run_dir=tmp_path / "run")
    assert again["test_result"] == result["test_result"]


@pytest.mark.parametrize("name", TRAINED)
def test_a_training_that_was_cut_inside_an_epoch_goes_on_as_if_it_was_not(keys_of, tmp_path, name):
    unseen = {**keys_of(name), "eval_step": 0}  # the last weights are kept: where it was cut is none to be the best
    whole = run(name, config_dict=unseen, run_dir=tmp_path / "whole")
    for limit in (4, 8, None):
        keys = {**unseen, "max_steps": limit, "resume": limit != 4}
        part = run(name, config_dict=keys, run_dir=tmp_path / "cut")
    assert json.loads((tmp_path / "cut" / "costs.json").read_text())["steps"] > 8
    assert part["test_result"] == whole["test_result"]
    models = [load_run(tmp_path / folder).model for folder in ("cut", "whole")]
    weights = [torch.cat([weight.flatten() for weight in model.parameters()]) for model in models]
    assert torch.equal(*weights)


@pytest.mark.parametrize("name", HERE)
def test_scores_are_those_of_single_items_and_single_rows(built, name):
    model, rows = built(name)
    if name == "NCL":
        model.begin_epoch(0)
    with torch.no_grad():
        table = model.full_sort_predict(rows).view(len(rows), -1)
        assert table.shape == (len(rows), 13) and table.isfinite().all() and table.std() > 0
        first = model.full_sort_predict(rows[:1]).view(-1)
        torch.testing.assert_close(first, table[0], rtol=0, atol=2e-6)
        for item in (1, 12):
            rows[model.ITEM_ID][:] = item
            torch.testing.assert_close(model.predict(rows).view(-1), table[:, item], rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", sorted(_USERS))
def test_a_row_for_each_user_and_no_negatives(keys_of, name):
    config = Config(name, config_dict=keys_of(name))
    assert config["train_neg_sample_args"]["distribution"] == "none"
    train, *_ = data_preparation(config, create_dataset(config))
    rows = list(train)
    assert all(list(batch.interaction) == ["user_id"] for batch in rows)
    users = torch.cat([batch["user_id"] for batch in rows]).tolist()
    assert sorted(users) == list(range(1, 15)) != users


def test_which_models_know_a_user_by_items_alone():
    neighbours, encoders = {"AsymKNN", "ItemKNN"}, {"MacridVAE", "MultiDAE", "MultiVAE", "RecVAE"}
    assert {*OF_ITEMS} == neighbours | encoders | {"DiffRec", "EASE", "LDiffRec", "SLIMElastic"}
    with_key = {name for name in HERE if "score_from" in get_spec(name).model.Keys.keys}
    assert with_key == {*OF_ITEMS} and {"CDAE", "ENMF", "LightGCN"} < {*HERE} - with_key


@pytest.mark.parametrize("name", OF_ITEMS)
def test_a_history_is_what_was_before_the_target(keys_of, name):
    """Before the validation's target of leave-one-out is the training; before the test's is the validation's, too."""
    tables = {}
    for source in ("training", "history"):
        config = Config(name, config_dict={**keys_of(name), "score_from": source})
        train, *evaluated = data_preparation(config, create_dataset(config))
        torch.manual_seed(0)
        model = config.spec.build(config, train._dataset).eval()
        with torch.no_grad():
            tables[source] = [model.full_sort_predict(next(iter(loader))[0]).view(-1, 13) for loader in evaluated]
    (valid, test), (valid_too, other) = tables.values()
    torch.testing.assert_close(valid, valid_too)
    assert len(valid) == 14 and ((test - other).abs() > 1e-5).any(dim=1).all()


@pytest.mark.parametrize("name", ["EASE", "MultiVAE"])
def test_a_finished_run_is_evaluated_from_histories(keys_of, tmp_path, name):
    keys = {**keys_of(name), "epochs": 2, "metrics": ["NDCG"], "valid_metric": "NDCG@10"}
    trained = run(name, config_dict=keys, run_dir=tmp_path / "training")
    seen = run(name, config_dict={"score_from": "history", "evaluate_only": True}, run_dir=tmp_path / "training")
    assert seen["valid_result"] == trained["best_valid_result"] and seen["test_result"] != trained["test_result"]
    again = run(name, config_dict={**keys, "score_from": "history"}, run_dir=tmp_path / "history")
    assert again["best_valid_result"] == trained["best_valid_result"] and again["test_result"] == seen["test_result"]
    weights = [(tmp_path / run / "best" / "weights.safetensors").read_bytes() for run in ("training", "history")]
    assert weights[0] == weights[1], "it trains nothing else"
