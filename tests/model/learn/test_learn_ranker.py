"""LEARNRanker: RecBole's rankers with LEARN's vectors, and a LEARN that knows nothing of the rows to score."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from recbole_hllm import Config, create_dataset, data_preparation, load_run, run
from recbole_hllm.config.keys.learn import RANKERS
from recbole_hllm.errors import ConfigError

# isort: split
from recbole.data.interaction import Interaction
from recbole.utils import init_seed

from recbole_hllm.model.learn.learn_ranker import LEARNRanker, as_float_sequence
from recbole_hllm.runs.prerequisites import complete

N_ITEMS = 12
HEADER = "user_id:token\titem_id:token\tlabel:float\ttimestamp:float"
SMALL = {
    "content": "id", "content_dim": 6, "hidden_size": 8, "n_layers": 1, "n_heads": 2, "inner_size": 8, "output_size": 4,
    "epochs": 1, "target_length": 2, "precision": "fp32",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_dataset):
    """data_path of ``liked``, whose items have a class and a year."""
    folder = tmp_path_factory.mktemp("liked")
    events = [(f"u{user}", f"i{(3 * user + step * (user + 2)) % N_ITEMS}", (user + step) % 3 > 0, 10 * step + user)
              for step in range(9) for user in range(10)]  # fmt: skip
    events = [(user, item, int(label), time) for user, item, label, time in events]
    items = ("item_id:token\tclass:token_seq", [(f"i{item}", f"c{item % 3} c{item % 2}") for item in range(N_ITEMS)])
    write_dataset(folder, "liked", events, items=items, header=HEADER)
    return folder


@pytest.fixture(scope="module")
def keys_of(folder):
    return lambda **keys: {
        "data_path": str(folder), "dataset": "liked", "MAX_ITEM_LIST_LENGTH": 4, "train_batch_size": 16, "epochs": 1,
        "eval_batch_size": 16, "use_gpu": False, "show_progress": False, "cache_dir": str(folder / "cache"),
        "learn_keys": SMALL, "load_col": None, **keys,
    }  # fmt: skip


def made(name, keys):
    config = Config(name, config_dict=keys)
    complete(config, None, run)
    init_seed(config["seed"], True)
    loaders = data_preparation(config, create_dataset(config))
    init_seed(config["seed"], True)
    return config.spec.model(config, loaders[0]._dataset), loaders


@pytest.fixture
def build(keys_of):
    """(**keys) -> a LEARNRanker in evaluation mode, and its loaders."""

    def make(**keys):
        model, loaders = made("LEARNRanker", keys_of(**keys))
        return model.eval(), loaders

    return make


@pytest.mark.parametrize(
    "keys, said",
    [
        ({}, []),
        ({"learn_features": ["user"], "fusion_weight": 0.7}, ["fusion_weight without effect: learn_features has no"]),
        ({"learn_features": [], "learn": "/nowhere"}, ["learn, learn_keys without effect: learn_features is empty"]),
    ],
)
def test_keys_without_effect_are_told(build, caplog, keys, said):
    caplog.clear()
    build(**keys)
    told = [record.getMessage() for record in caplog.records if "without effect" in record.getMessage()]
    assert len(told) == len(said) and all(line.startswith(start) for line, start in zip(told, said, strict=True))


@pytest.mark.parametrize("ranker", RANKERS)
@pytest.mark.parametrize("feature", ["user", "item", "middle"])
def test_a_learn_vector_moves_the_score(build, ranker, feature, monkeypatch):
    """RecBole ignores dense columns that nobody lists, and says nothing."""
    model, loaders = build(ranker=ranker, learn_features=[feature])
    rows = loaders[0]._dataset[list(range(8))]
    before, vectors = model.predict(rows), model.learn_vectors(rows)
    changed = [vector.flip(-1) + 0.5 for vector in vectors]
    monkeypatch.setattr(model, "learn_vectors", lambda rows: tuple(changed))
    assert (model.predict(rows) - before).abs().max() > 1e-6


@pytest.mark.parametrize("ranker", RANKERS)
def test_without_learns_vectors_it_is_the_ranker_alone(build, keys_of, ranker):
    """The same rows, the same features, the same weights, the same scores and the same loss."""
    alone, theirs = made(ranker, {key: value for key, value in keys_of().items() if key != "learn_keys"})
    ours, loaders = build(ranker=ranker, learn_features=[])
    assert alone.field_names == ours.ranker.field_names and ours.fusion is None
    ours.ranker.load_state_dict(alone.state_dict())
    alone.eval()
    for mine, other in zip(loaders[1:], theirs[1:], strict=True):
        rows, expected = next(iter(mine))[0], next(iter(other))[0]
        for field in ("user_id", "item_id", "label"):
            assert torch.equal(rows[field], expected[field])
        torch.testing.assert_close(ours.predict(rows), alone.predict(expected))
        torch.testing.assert_close(ours.calculate_loss(rows), alone.calculate_loss(expected))


def test_what_the_ranker_reads_is_a_product_with_learned_vectors(build):
    model, loaders = build(learn_features=["user"])
    rows = loaders[0]._dataset[[3, 20]]
    users = model.learn_vectors(rows)[0]
    table = model.ranker.float_seq_embedding_table[model.ranker.float_seq_field_names.index("learn_user")].weight
    read = model.ranker.embed_float_seq_fields([as_float_sequence(users)])[:, 0]
    torch.testing.assert_close(read, users @ table[1:], rtol=1e-4, atol=1e-6)


def test_a_users_vector_is_of_the_rows_own_history(build):
    """Computed for each interaction: what came before it and no more."""
    model, loaders = build()
    rows = loaders[2]._dataset[[0, 5]]
    users, items = model.learn_vectors(rows)
    for place in range(2):
        history = rows["item_id_list"][place][: int(rows["item_length"][place])][None]
        output = model.learn.user_tower(model.learn.content(history))[0, -1]
        torch.testing.assert_close(users[place], F.normalize(output, dim=-1))
        item = model.learn.vectors_of(rows["item_id"][place][None])[0]
        torch.testing.assert_close(items[place], F.normalize(item, dim=-1))


def test_loss_is_the_rankers_and_the_fusions(build):
    model, loaders = build(fusion_weight=0.5)
    rows = loaders[0]._dataset[list(range(16))]
    featured, logits = model._with_features(rows)
    fusion = F.binary_cross_entropy(logits.sigmoid(), rows["label"])
    torch.testing.assert_close(model.calculate_loss(rows), model.ranker.calculate_loss(featured) + 0.5 * fusion)
    assert model.loss_terms["fusion_loss"] == pytest.approx(fusion.item(), rel=1e-5)


def test_learn_stays_frozen(build):
    model, loaders = build()
    before = {name: weight.clone() for name, weight in model.learn.state_dict().items()}
    model.train()
    assert not model.learn.training
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], 0.1)
    for rows in loaders[0]:
        optimizer.zero_grad()
        model.calculate_loss(rows).backward()
        optimizer.step()
    assert all(torch.equal(weight, before[name]) for name, weight in model.learn.state_dict().items())
    assert all(weight.grad is not None for weight in model.fusion.parameters())


def test_learn_is_trained_on_what_was_liked_before_the_rows_to_score(keys_of):
    keys = {key: value for key, value in keys_of(**SMALL).items() if key != "learn_keys"}
    _, (train, valid, _) = made("LEARNScorer", keys)
    data, first = train._dataset, min(valid._dataset[list(range(len(valid._dataset)))]["event_time"])
    positions = data.rows.events
    assert data.labels[positions].all() and data.sequences.timestamps[positions].max() < first
    liked = np.flatnonzero(data.labels)
    assert set(positions) == set(liked) & set(data.training_positions)
    rows = data[list(range(len(data)))]
    items = set(data.sequences.items[positions])
    assert set(rows["target_item_list"].flatten().tolist()) - {0} <= items
    everything = made("LEARNScorer", {**keys, "history_filter": "all"})[1][0]._dataset
    assert set(everything.rows.events) == set(everything.training_positions)


def test_learns_score_is_its_cosine_from_0_to_1(keys_of):
    keys = {key: value for key, value in keys_of(**SMALL).items() if key != "learn_keys"}
    model, loaders = made("LEARNScorer", keys)
    rows = next(iter(loaders[1]))[0]
    model.eval()
    cosine = F.cosine_similarity(model.user_vectors(rows), model.item_vectors()[rows["item_id"]], dim=-1)
    torch.testing.assert_close(model.predict(rows), (1 + cosine) / 2)


def test_the_learn_it_needs_is_trained_first_and_found_again(keys_of, tmp_path):
    cache = tmp_path / "cache"
    run("LEARNRanker", config_dict=keys_of(cache_dir=str(cache)), run_dir=tmp_path / "one")
    (learn,) = cache.glob("LEARNScorer-*")
    made_of = yaml.safe_load((learn / "config.yaml").read_text())
    assert made_of["history_filter"] == "positive" and made_of["content"] == "id"
    begun = (learn / "costs.json").stat().st_mtime_ns
    run("LEARNRanker", config_dict=keys_of(cache_dir=str(cache), ranker="FM"), run_dir=tmp_path / "two")
    assert (learn / "costs.json").stat().st_mtime_ns == begun
    run("LEARNRanker", config_dict=keys_of(cache_dir=str(cache), history_filter="all"), run_dir=tmp_path / "three")
    assert len(list(cache.glob("LEARNScorer-*"))) == 2, "another history is another LEARN"


def test_keys_of_its_learn_that_are_given_as_its_own_are_told(keys_of, caplog, tmp_path):
    keys = keys_of(cache_dir=str(tmp_path / "cache"), content="bert", split_by="time", learning_rate=0.01, num_layers=1)
    run("LEARNRanker", config_dict={**keys, "n_layers": 2, "ranker": "AutoInt"}, run_dir=tmp_path / "run")
    told = [record.getMessage() for record in caplog.records if "without effect" in record.getMessage()]
    assert told == [
        "num_layers without effect: LEARNRanker reads no such key",
        "content, split_by without effect: keys of the LEARNScorer, not of LEARNRanker; its own are given in "
        "learn_keys, such as --learn_keys=\"{'content': 'bert'}\""
    ], "learning_rate is the ranker's too, n_layers AutoInt's"
    caplog.clear()
    load_run(tmp_path / "run")
    run("LEARNRanker", config_dict=keys_of(cache_dir=str(tmp_path / "cache")), run_dir=tmp_path / "again")
    assert "without effect" not in caplog.text


def test_keys_of_a_learn_that_is_named(keys_of, tiny_llm, tmp_path, caplog):
    texts = {"content": "bert", "item_pretrain_dir": tiny_llm("bert"), "MAX_TEXT_LENGTH": 8, "content_dim": 128}
    keys = keys_of(cache_dir=str(tmp_path / "cache"), learn_keys={**SMALL, **texts}, text_keys=["class"])
    run("LEARNRanker", config_dict=keys, run_dir=tmp_path / "one")
    saved = yaml.safe_load((tmp_path / "one" / "config.yaml").read_text())
    run("LEARNRanker", config_dict={**saved, "content": "bert", "trust_remote_code": True}, run_dir=tmp_path / "two")
    assert "effect" not in caplog.text, "the LEARN was made so"
    run("LEARNRanker", config_dict={**saved, "text_keys": ["item_id"]}, run_dir=tmp_path / "three")
    assert "text_keys: ['item_id'] has no effect on " in caplog.text and "trained on ['class']" in caplog.text


def test_files_with_another_separator(keys_of, tmp_path):
    rows = [f"u{user},i{item},{(user + item) % 2},{9 * item + user}" for user in range(6) for item in range(9)]
    (tmp_path / "comma").mkdir()
    header = "user_id:token,item_id:token,label:float,timestamp:float"
    (tmp_path / "comma" / "comma.inter").write_text("\n".join([header, *rows]) + "\n")
    keys = keys_of(data_path=str(tmp_path), dataset="comma", field_separator=",", cache_dir=str(tmp_path / "cache"))
    run("LEARNRanker", config_dict=keys, run_dir=tmp_path / "one")
    (learn,) = (tmp_path / "cache").glob("LEARNScorer-*")
    run("LEARNRanker", config_dict={**keys, "learn": str(learn)}, run_dir=tmp_path / "two")


def test_names_of_text_columns_are_of_the_data(keys_of, tmp_path):
    keys = keys_of(cache_dir=str(tmp_path / "cache"), text_keys=["class"])
    run("LEARNRanker", config_dict=keys, run_dir=tmp_path / "run")
    (learn,) = (tmp_path / "cache").glob("LEARNScorer-*")
    assert yaml.safe_load((learn / "config.yaml").read_text())["text_keys"] == ["class"]


def test_data_without_texts(keys_of, write_dataset, tmp_path):
    events = [(f"u{user}", f"i{item}", (user + item) % 2, 9 * item + user) for user in range(4) for item in range(9)]
    write_dataset(tmp_path, "bare", events, header=HEADER)
    keys = keys_of(data_path=str(tmp_path), dataset="bare", cache_dir=str(tmp_path / "cache"), learn_keys=None)
    with pytest.raises(ConfigError, match="no .*bare.item: .*; without texts: content: id .of a LEARNRanker, learn"):
        run("LEARNRanker", config_dict=keys, run_dir=tmp_path / "run")


def test_its_learn_is_not_chosen_by_a_metric_of_probabilities(keys_of, tmp_path):
    keys = keys_of(cache_dir=str(tmp_path / "cache"), metrics=["LogLoss"], valid_metric="LogLoss")
    run("LEARNRanker", config_dict=keys, run_dir=tmp_path / "one")
    (learn,) = (tmp_path / "cache").glob("LEARNScorer-*")
    made_of = yaml.safe_load((learn / "config.yaml").read_text())
    assert (made_of["valid_metric"].lower(), made_of["metrics"]) == ("auc", ["AUC"])


@pytest.mark.parametrize("ranker", ["DeepFM", "AutoInt"])
def test_a_whole_run_without_learns_vectors_has_the_rankers_numbers(keys_of, ranker, tmp_path):
    given = keys_of(epochs=2, embedding_size=4, metrics=["AUC", "LogLoss"])
    keys = {key: value for key, value in given.items() if key != "learn_keys"}
    alone = run(ranker, config_dict=keys, run_dir=tmp_path / "alone")
    ours = run("LEARNRanker", config_dict={**keys, "ranker": ranker, "learn_features": []}, run_dir=tmp_path / "ours")
    assert ours["test_result"] == alone["test_result"] and ours["best_valid_score"] == alone["best_valid_score"]
    assert not list((tmp_path / "ours").glob("LEARN*"))


def test_a_run_is_read_back_after_its_cache_is_gone(keys_of, tmp_path):
    keys = keys_of(cache_dir=str(tmp_path / "cache"))
    run("LEARNRanker", config_dict=keys, run_dir=tmp_path / "run")
    before = load_run(tmp_path / "run")
    rows = next(iter(before.test_data))[0]
    expected = before.model.predict(rows)
    shutil.rmtree(tmp_path / "cache")
    assert torch.equal(load_run(tmp_path / "run").model.predict(rows), expected)


def test_a_run_is_read_back_whatever_became_of_its_learn(keys_of, tmp_path, caplog):
    """Moved, or replaced by another: what it was made with is kept with the run, not only its weights."""
    keys = {key: value for key, value in keys_of(**SMALL).items() if key != "learn_keys"}
    own = {"n_heads": 4, "n_layers": 2, "position_embedding": True}
    run("LEARNScorer", config_dict={**keys, **own}, run_dir=tmp_path / "learn")
    ranked = {**keys_of(), "learn": str(tmp_path / "learn"), "learn_keys": {**SMALL, "n_layers": 5}}
    run("LEARNRanker", config_dict=ranked, run_dir=tmp_path / "run")
    assert "learn_keys has no effect: learn names a run that is trained already" in caplog.text
    before = load_run(tmp_path / "run")
    rows = next(iter(before.test_data))[0]
    expected = before.model.predict(rows)
    (tmp_path / "learn").rename(tmp_path / "elsewhere")
    assert torch.equal(load_run(tmp_path / "run").model.predict(rows), expected)
    run("LEARNScorer", config_dict={**keys, "n_heads": 1}, run_dir=tmp_path / "learn")
    assert torch.equal(load_run(tmp_path / "run").model.predict(rows), expected)


def test_changed_texts_have_a_learn_of_their_own(keys_of, folder, tiny_llm, tmp_path):
    texts = {**SMALL, "content": "bert", "item_pretrain_dir": tiny_llm("bert"), "text_keys": ["class"]}
    file = folder / "liked" / "liked.item" if (folder / "liked").is_dir() else folder / "liked.item"
    before = file.read_text()
    try:
        seen = []
        for change in ("", "w7 "):
            file.write_text(before.replace("c0", f"{change}c0"))
            for learn_keys in (SMALL, texts):
                config = Config("LEARNRanker", config_dict=keys_of(cache_dir=str(tmp_path), learn_keys=learn_keys))
                complete(config, None, run)
                seen.append(config["learn"])
    finally:
        file.write_text(before)
    assert seen[0] == seen[2] and seen[1] != seen[3], "of ids the texts are nothing"


def test_a_folder_never_allows_code(keys_of, tmp_path, build, monkeypatch):
    from recbole_hllm.model.learn import learn_ranker

    keys = {key: value for key, value in keys_of(**SMALL).items() if key != "learn_keys"}
    run("LEARNScorer", config_dict=keys, run_dir=tmp_path / "learn")
    file = tmp_path / "learn" / "config.yaml"
    file.write_text(file.read_text() + "\ntrust_remote_code: true\n")
    seen, learn = [], learn_ranker.LEARN

    def made(config, *further, **named):
        seen.append(config)
        return learn(config, *further, **named)

    monkeypatch.setattr(learn_ranker, "LEARN", made)
    build(learn=str(tmp_path / "learn"))
    assert not seen[0]["trust_remote_code"]


def test_random_content_of_another_seed(build):
    build(learn_keys={**SMALL, "content": "random", "seed": 9})


def test_positions_that_learn_does_not_know(build):
    with pytest.raises(ConfigError, match="MAX_ITEM_LIST_LENGTH: 4: the positions of .* end at 3"):
        build(learn_keys={**SMALL, "position_embedding": True, "MAX_ITEM_LIST_LENGTH": 3})


def test_many_places_of_a_vector_in_half_precision():
    numbers = as_float_sequence(torch.ones(1, 300, dtype=torch.bfloat16))[0, :, 1]
    assert numbers.tolist() == list(range(1, 301))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"ranker": "DIN"}, "ranker: 'DIN' is not one of AFM, "),
        ({"ranker": "deepfm"}, "ranker: 'deepfm' .*did you mean 'DeepFM'"),
        ({"learn_features": ["users"]}, r"learn_features: \['users'\] is not a list of user, item, middle"),
        ({"learn_features": ["user", "user"]}, "learn_features"),
        ({"learn_features": [["user"]]}, "learn_features"),
        ({"learn_features": "user"}, "learn_features: 'user' is not a list"),
        ({"fusion_hidden": []}, "fusion_hidden must not be empty"),
        ({"fusion_hidden": [0]}, "fusion_hidden: 0 must be at least 1"),
        ({"ranker_keys": {"mlp_size": [8]}}, "ranker_keys: DeepFM has no key 'mlp_size'"),
        ({"ranker_keys": [8]}, r"ranker_keys: \[8\] is not a dict"),
        ({"weights": "bf16", "precision": "bf16"}, "weights: bf16: LEARNRanker reads a finished LEARN"),
        ({"learn": "nowhere"}, "learn: there is no finished run of LEARNScorer in .*nowhere"),
    ],
)
def test_values_that_are_refused(build, keys, message):
    with pytest.raises(ConfigError, match=message):
        build(**keys)


def test_a_learn_of_other_rows_is_refused(build, keys_of, tmp_path):
    """One that was trained on rows that are to be scored would know the answers."""
    keys = {key: value for key, value in keys_of(**SMALL).items() if key != "learn_keys"}
    later = {"split": {"RS": [0.9, 0.05, 0.05]}, "order": "TO", "group_by": "none", "mode": "labeled"}
    run("LEARNScorer", config_dict={**keys, "eval_args": later}, run_dir=tmp_path / "later")
    with pytest.raises(ConfigError, match="learn: .*later was trained on other data than this run"):
        build(learn=str(tmp_path / "later"))
    run("LEARNScorer", config_dict={**keys, "history_filter": "all"}, run_dir=tmp_path / "all")
    with pytest.raises(ConfigError, match="its history_filter differ"):
        build(learn=str(tmp_path / "all"))


def test_keys_of_the_ranker(build):
    model, _ = build(ranker_keys={"mlp_hidden_size": [7], "embedding_size": 3})
    assert model.ranker.deep_predict_layer.in_features == 7 and model.ranker.embedding_size == 3
    assert isinstance(model, LEARNRanker)


def test_rows_of_a_catalogue(build):
    model, loaders = build()
    rows = next(iter(loaders[2]))[0]
    table = model.full_sort_predict(rows)
    assert table.shape == (len(rows), model.n_items)
    one = Interaction({name: values[:1] for name, values in rows.interaction.items()})
    one["item_id"] = torch.tensor([5])
    torch.testing.assert_close(model.predict(one)[0], table[0, 5])
