"""Exports of finished runs: they recommend as the run, new items have the model's vectors, trainings start there."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from recbole_hllm import load_run, run
from recbole_hllm.data.texts.item_texts import ItemTexts
from recbole_hllm.errors import ConfigError, DataError, ModelError
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.base.item_texts import read_texts
from recbole_hllm.model.learn.exported import served_of
from recbole_hllm.runs.export import export, export_model
from recbole_hllm.serving.recommender import Recommender

N_ITEMS = 12  # of the toy data
ALL = {"item_whitening": "zca", "item_head_hidden": 10}
LEARN = {"content": "llm", "item_llm_layers": 1, "text_keys": ["title"], "MAX_TEXT_LENGTH": 24}
# Name -> model and keys.
RUNS = {
    "HLLM": ("HLLM", {}),
    "HLLM frozen": ("HLLM", {**ALL, "item_llm_tuning": "frozen", "time_num": 6}),
    "HLLM ids": ("HLLM", {**ALL, "item_emb_token_n": 0, "item_id_bound": 0.5}),
    "LEARN": ("LEARN", LEARN),
    "LEARN own": ("LEARN", {**LEARN, "shared_towers": False, "item_tower": "alone", "position_embedding": True}),
    "LEARN content": ("LEARN", {**LEARN, "item_tower": "content", "content_pooling": "last"}),
    "LEARN id": ("LEARN", {"content": "id", "content_dim": 8}),
    "SASRec": ("SASRec", {}),
}
OF_TEXTS = [name for name in RUNS if name not in ("LEARN id", "SASRec")]


@pytest.fixture(scope="module")
def finished(settings_of, tmp_path_factory):
    """name of RUNS -> folder of its run of the toy data, made once."""
    folders = {}

    def of(name):
        if name not in folders:
            model, keys = RUNS[name]
            own = settings_of(model)
            if "LEARN" in name:
                own["item_pretrain_dir"] = settings_of("HLLM")["item_pretrain_dir"]
            folders[name] = tmp_path_factory.mktemp("runs") / "run"
            run(model, config_dict={**own, "epochs": 1, "learning_rate": 0.01, **keys}, run_dir=folders[name])
        return folders[name]

    return of


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """name of RUNS -> its run, read back, and the folder of its export with histories, made once."""
    made = {}

    def of(name):
        if name not in made:
            loaded = load_run(finished(name))
            made[name] = loaded, export(loaded, tmp_path_factory.mktemp("exports") / "out", histories=True)
        return made[name]

    return of


# ---- what is recommended ----


@pytest.mark.parametrize("name", RUNS)
def test_recommendations_are_the_scores_of_the_run(exported, name):
    loaded, folder = exported(name)
    recommender = Recommender.from_pretrained(folder)
    data = loaded.dataset
    users, sequences = data.latest_sequences()
    rows, model = data.latest_rows(sequences, whole=True), loaded.model.eval()
    with torch.no_grad():
        scores = model.full_sort_predict(rows).view(len(users), -1)[:, 1:]
    at = rows["event_time"] if "event_time" in rows else [None] * len(users)
    for place, user in enumerate(data.id2token("user_id", users)):
        time = None if at[place] is None else float(at[place])
        found = recommender.recommend(user=str(user), k=N_ITEMS, filter_seen=False, at=time)
        numbers = [int(data.token2id("item_id", item.id)) - 1 for item in found]
        assert sorted(numbers) == list(range(N_ITEMS))
        torch.testing.assert_close(
            torch.tensor([item.score for item in found]), scores[place, numbers], rtol=1e-4, atol=2e-6
        )
    assert scores.std() > 1e-4


def test_items_have_the_fields_of_the_data(exported):
    recommender = Recommender.from_pretrained(exported("HLLM")[1])
    number = recommender.catalogue.number("i7")
    assert recommender.catalogue.fields[number] == {"title": "7 grey"}
    assert recommender.text_of({"title": "7 grey"}) == exported("HLLM")[0].model.catalogue.texts[
        exported("HLLM")[0].dataset.token2id("item_id", "i7")
    ]


# ---- new items ----


def model_with(loaded, fields):
    """The run's model, of a data set whose last item has other fields."""
    texts = read_texts(loaded.model.settings, loaded.dataset)
    texts = ItemTexts(texts.keys, [*texts.fields][:-1] + [(*fields,)], texts.has_row)
    model = type(loaded.model)(loaded.config, loaded.train_data._dataset, texts, Weights.FOLLOW)
    model.load_state_dict(loaded.model.state_dict())
    return model.eval()


@pytest.mark.parametrize("name", ["HLLM", "HLLM frozen", "LEARN", "LEARN own", "LEARN content"])
def test_a_new_and_a_changed_item_have_the_vectors_that_the_model_would_give(exported, name):
    loaded, folder = exported(name)
    recommender = Recommender.from_pretrained(folder)
    last = str(loaded.dataset.id2token("item_id", N_ITEMS))
    recommender.add_items({"new": {"title": "something blue"}, last: {"title": "something blue"}})
    with torch.no_grad():
        expected = model_with(loaded, ["something blue"]).item_vectors()[N_ITEMS]
    expected = expected / expected.norm()
    for item in ("new", last):
        number = recommender.catalogue.number(item)
        torch.testing.assert_close(recommender.served.items[number], expected, rtol=1e-3, atol=2e-4)
        assert recommender.catalogue.fields[number] == {"title": "something blue"}
    before = Recommender.from_pretrained(folder).served.items[recommender.catalogue.number(last)]
    assert (before - expected).abs().max() > 1e-3
    times = {"times": [1e9], "at": 1e9 + 7} if recommender.served.reads_times else {}
    assert {"new", last} <= {item.id for item in recommender.recommend(items=["i0"], k=20, **times)}


def test_a_new_item_has_the_vector_of_its_text_where_items_have_a_part_of_their_id(exported):
    loaded, folder = exported("HLLM ids")
    recommender, model = Recommender.from_pretrained(folder), loaded.model
    with torch.no_grad():
        model.id_part.rows.weight[1:] += torch.randn(N_ITEMS, model.id_part.rows.weight.shape[1])
        model.train().eval()
        ids = torch.arange(1, N_ITEMS + 1)
        with_ids, alone = model.item_vectors()[1:], model._encode(ids)
    assert (with_ids - alone).abs().max() > 0.01
    recommender.add_items({f"new {item}": recommender.catalogue.fields[item] for item in ids.tolist()})
    expected = torch.nn.functional.normalize(alone, dim=-1)
    # Whitening scales up what varies little among so few items, and its rounding.
    torch.testing.assert_close(recommender.served.items[N_ITEMS + 1 :], expected, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("name", OF_TEXTS)
def test_texts_of_known_items_are_read_as_the_items(exported, name):
    """Of a history by texts alone; in HLLM with parts of ids the items have those beside."""
    recommender = Recommender.from_pretrained(exported(name)[1])
    fields = [recommender.catalogue.fields[recommender.catalogue.number(item)] for item in ("i3", "i4", "i5")]
    times = {"times": [1e9, 1e9 + 7, 1e9 + 14], "at": 1e9 + 21} if recommender.served.reads_times else {}
    options = {"k": N_ITEMS, "filter_seen": False, **times}
    by_ids = {item.id: item.score for item in recommender.recommend(items=["i3", "i4", "i5"], **options)}
    by_texts = {item.id: item.score for item in recommender.recommend(texts=fields, **options)}
    assert by_texts == pytest.approx(by_ids, abs=0.5 if "ids" in name else 2e-5)
    written = [recommender.text_of(one) for one in fields]
    again = {item.id: item.score for item in recommender.recommend(texts=written, **options)}
    assert again == pytest.approx(by_texts, abs=1e-6)


def test_items_without_what_the_model_reads(exported):
    recommender = Recommender.from_pretrained(exported("HLLM")[1])
    for fields in ({}, {"title": " "}, {"class": "red"}):
        with pytest.raises(DataError, match="^texts: none of the fields title is given"):
            recommender.add_items({"new": fields})
    with pytest.raises(DataError, match="^texts: a text is empty"):
        recommender.recommend(texts=[" "])
    assert "new" not in recommender.catalogue and len(recommender.catalogue) == N_ITEMS


@pytest.mark.parametrize("name", ["SASRec", "LEARN id"])
def test_models_of_ids_have_no_new_items(exported, name):
    folder = exported(name)[1]
    assert not (folder / "item_encoder").exists()
    recommender = Recommender.from_pretrained(folder)
    model = RUNS[name][0]
    for ask in (lambda: recommender.add_items({"new": {"title": "x"}}), lambda: recommender.recommend(texts=["x"])):
        with pytest.raises(ModelError, match=f"^{model} knows items by id and reads no texts"):
            ask()


# ---- trainings ----


def test_a_training_starts_from_an_export(exported, settings_of, tmp_path):
    loaded, folder = exported("HLLM")
    own = {"item_pretrain_dir": None, "pretrained_hllm": str(folder), "user_llm_config": None, "epochs": 0}
    result = run("HLLM", config_dict={**settings_of("HLLM"), **own}, run_dir=tmp_path / "run")
    expected = json.loads((loaded.run_dir / "metrics.json").read_text())["test_result"]
    assert result["test_result"] == pytest.approx(expected, abs=1e-9)
    again = load_run(tmp_path / "run").model.state_dict()
    for name, weight in loaded.model.state_dict().items():
        rows = (again[name] != weight).reshape(len(weight), -1).any(1).sum() if weight.dim() else again[name] != weight
        # [ITEM] took the row of no word.
        assert rows <= name.endswith("embed_tokens.weight"), name
    export(load_run(tmp_path / "run"), tmp_path / "out")
    sizes = [(one / "item_encoder" / "model.safetensors").stat().st_size for one in (folder, tmp_path / "out")]
    assert sizes[0] == sizes[1], "no token more with each export"


def test_an_export_of_an_earlier_version_is_read(exported, settings_of, tmp_path):
    """``item_llm/`` with its tokenizer, ``user_llm/`` and ``hllm.safetensors``."""
    loaded, folder = exported("HLLM")
    old = tmp_path / "old"
    encoder = loaded.model.item_encoder
    encoder.backbone.save_pretrained(old / "item_llm")
    for name in ("config.json", "model.safetensors"):
        (old / "user_llm").mkdir(exist_ok=True)
        (old / "user_llm" / name).write_bytes((folder / "user_llm" / name).read_bytes())
    for file in (folder / "item_encoder" / "tokenizer").iterdir():
        (old / "item_llm" / file.name).write_bytes(file.read_bytes())
    save_file(load_file(folder / "training.safetensors"), old / "hllm.safetensors", {"ids": loaded.model.ids_digest})
    own = {"item_pretrain_dir": None, "user_llm_config": None, "epochs": 0}
    keys = {**settings_of("HLLM"), **own, "pretrained_hllm": str(old)}
    result = run("HLLM", config_dict=keys, run_dir=tmp_path / "run")
    assert result["test_result"] == json.loads((loaded.run_dir / "metrics.json").read_text())["test_result"]


def test_an_export_of_another_model(exported, settings_of, tmp_path):
    folder = exported("HLLM")[1]
    keys = {**settings_of("E4SRec"), "item_table_keys": None, "user_llm_config": None, "pretrained_e4srec": str(folder)}
    with pytest.raises(ModelError, match="^pretrained_e4srec: .*out is an export of HLLM, not of E4SRec"):
        run("E4SRec", config_dict=keys, run_dir=tmp_path / "run")
    keys = {**settings_of("HLLM"), "pretrained_hllm": str(exported("SASRec")[1])}
    with pytest.raises(ModelError, match="^pretrained_hllm: the folder .* has no training.safetensors"):
        run("HLLM", config_dict=keys, run_dir=tmp_path / "other")


def test_no_language_model_is_written_twice(exported):
    folder = exported("HLLM")[1]
    llms = [file.parent.name for file in folder.rglob("config.json") if "model_type" in json.loads(file.read_text())]
    assert sorted(llms) == ["item_encoder", "user_llm"]
    names = {name for file in folder.glob("*.safetensors") for name in load_file(file)}
    assert not [name for name in names if "backbone" in name]


def test_what_cannot_recommend_can_be_trained_on(settings_of, tmp_path):
    """A ranker's scores are a head's."""
    run("HLLMRanker", config_dict={**settings_of("HLLMRanker"), "epochs": 1}, run_dir=tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    folder = export(loaded, tmp_path / "out", vectors="npy")
    with pytest.raises(ModelError, match="recommends nothing: HLLMRanker is not exported: it says how likely a label"):
        Recommender.from_pretrained(folder)
    assert np.load(folder / "vectors" / "item_vectors.npy").shape == (N_ITEMS, 16)
    own = {"item_pretrain_dir": None, "pretrained_hllm": str(folder), "user_llm_config": None, "epochs": 0}
    again = run("HLLMRanker", config_dict={**settings_of("HLLMRanker"), **own}, run_dir=tmp_path / "again")
    expected = json.loads((tmp_path / "run" / "metrics.json").read_text())["test_result"]
    assert again["test_result"] == pytest.approx(expected, abs=1e-6)


# ---- vectors for other programs ----


def test_vectors_as_parquet_are_those_of_npy(exported, tmp_path):
    loaded, _ = exported("HLLM")
    plain, folder = (export(loaded, tmp_path / form, vectors=form) / "vectors" for form in ("npy", "parquet"))
    for kind in ("item", "user"):
        table = pq.read_table(folder / f"{kind}_vectors.parquet")
        assert table.column_names == [f"{kind}_id", "vector"]
        vectors = np.stack(table["vector"].to_pylist()).astype(np.float32)
        np.testing.assert_array_equal(vectors, np.load(plain / f"{kind}_vectors.npy"))
        assert table[f"{kind}_id"].to_pylist() == (plain / f"{kind}_ids.txt").read_text().splitlines()
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert Recommender.from_pretrained(tmp_path / "parquet").recommend(items=["i0"], k=1)


def test_vectors_of_a_model_that_is_not_served(settings_of, tmp_path):
    run("PromptLLM", config_dict=settings_of("PromptLLM"), run_dir=tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    with pytest.raises(ModelError, match="^PromptLLM is not exported: nothing reads its histories as vectors"):
        export(loaded, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    folder = export(loaded, tmp_path / "out", vectors="npy")
    assert len(np.load(folder / "vectors" / "item_vectors.npy")) == N_ITEMS


# ---- bad asks ----


def test_folders_and_forms_that_cannot_be(exported, tmp_path):
    loaded, folder = exported("SASRec")
    with pytest.raises(ConfigError, match="^export: .* is not empty; name a new folder"):
        export(loaded, folder)
    with pytest.raises(ConfigError, match="^vectors: 'parket' is not one of npy, parquet; did you mean 'parquet'"):
        export(loaded, tmp_path / "out", vectors="parket")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="^export: cannot write .*file: there is a file"):
        export(loaded, tmp_path / "file")
    with pytest.raises(ConfigError, match="^dtype: 'int4' is not one of"):
        export(loaded, tmp_path / "int4", dtype="int4")


def test_a_frozen_language_model_that_has_changed(exported, tmp_path):
    loaded, _ = exported("LEARN")
    table = loaded.model.content.table
    table.source[0] ^= 1
    try:
        with pytest.raises(ModelError, match="language model of the content has changed on the disk"):
            export_model(loaded.model, tmp_path / "out")
    finally:
        table.source[0] ^= 1


def test_towers_that_are_language_models_are_refused_by_name():
    with pytest.raises(ModelError, match="^preference: llm: a LEARN whose towers are language models"):
        served_of(SimpleNamespace(settings=SimpleNamespace(preference="llm")))
