"""Whole runs of SLMRec: what they need first, what they cost, and the keys and teachers it refuses."""

import shutil
import threading
import time

import numpy as np
import pytest
import torch

from recbole_hllm import Config, run
from recbole_hllm.config.keys.slmrec import SLMRecKeys
from recbole_hllm.errors import ConfigError, ModelError, UserError
from recbole_hllm.model.slmrec import teacher as teachers
from recbole_hllm.runs.export import export_model
from recbole_hllm.runs.run import load_run
from recbole_hllm.storage.files import read_json
from recbole_hllm.tables.side_by_side import compare


def test_drawn_candidates_are_the_same_for_all(keys_of, taught_by, tmp_path):
    keys = {"eval_args": {"mode": "uni3"}, "epochs": 1}
    run("SLMRec", config_dict=keys_of(teacher=taught_by("positions"), **keys), run_dir=tmp_path / "student")
    own = {key: value for key, value in keys_of(**keys).items() if key not in ("blocks", "teacher_keys")}
    run("E4SRec", config_dict=own, run_dir=tmp_path / "teacher")
    prints = [read_json(tmp_path / row / "protocol.json")["fingerprint"] for row in ("student", "teacher")]
    assert prints[0] == prints[1] and prints[0]["test_candidates"] != "all"


def test_a_run_trains_what_is_missing_and_can_be_read_without_it(keys_of, tmp_path):
    keys = keys_of(item_table=None, cache_dir=str(tmp_path / "cache"))
    result = run("SLMRec", config_dict=keys, run_dir=tmp_path / "run")
    costs = read_json(tmp_path / "run" / "costs.json")
    assert 0 < costs["preparation_seconds"] < costs["total_seconds"] - costs["training_seconds"]
    made = sorted(folder.name.split("-")[0] for folder in (tmp_path / "cache").glob("[!.]*-toy-*"))
    assert made == ["E4SRec", "SASRec"]
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    read = load_run(tmp_path / "run")
    batch = next(iter(read.test_data))[0]
    with torch.no_grad():
        scores = read.model.full_sort_predict(batch)
    assert scores.isfinite().all() and result["test_result"]["mrr@10"] > 0
    with pytest.raises(ModelError, match="read for evaluation, without its teacher"):
        read.model.calculate_loss(next(iter(read.train_data)))


def test_a_catalogue_of_one_item(keys_of, write_dataset, tmp_path):
    """There the cross-entropy is 0, and any distance from the teacher's states is infinitely many times as much."""
    rows = [(f"u{user}", "i", 10 * user + step) for user in range(4) for step in range(5)]
    write_dataset(tmp_path, "one", rows)
    keys = {"dataset": "one", "data_path": str(tmp_path), "cache_dir": str(tmp_path / "cache"), "item_table": None}
    metrics = {"topk": [1], "valid_metric": "NDCG@1", "distill_norm": 1e3}
    result = run("SLMRec", config_dict=keys_of(**keys, **metrics), run_dir=tmp_path / "run")
    assert result["test_result"]["ndcg@1"] == 1
    assert "makes the distance of states" not in (tmp_path / "run" / "run.log").read_text()


def test_states_that_another_process_computes_are_waited_for(build, tmp_path, monkeypatch, caplog):
    computed, compute = [], teachers._compute

    def slow(*arguments):
        computed.append(arguments)
        while "waiting for it" not in caplog.text and len(computed) == 1:
            time.sleep(0.01)
        compute(*arguments)

    model, _, config, train = build(cache_dir=str(tmp_path / "first"))
    teacher = teachers.read_teacher(config, train._dataset)
    config.final_config_dict["cache_dir"] = str(tmp_path / "second")
    monkeypatch.setattr(teachers, "_compute", slow)
    caplog.set_level("INFO")
    made, settings = [], SLMRecKeys.of(config)
    work = [
        threading.Thread(target=lambda: made.append(teachers.CachedStates.of(teacher, settings, train._dataset)))
        for _ in range(2)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(made) == 2 and len(computed) == 1
    for states in made:
        np.testing.assert_array_equal(states.states, model.states.states)


def test_preparation_is_what_comes_before_the_first_epoch(keys_of, taught_by, tmp_path, monkeypatch):
    compute = teachers._compute
    monkeypatch.setattr(teachers, "_compute", lambda *arguments: (time.sleep(1), compute(*arguments)))
    keys = keys_of(teacher=taught_by("positions"), cache_dir=str(tmp_path / "cache"), epochs=1)
    run("SLMRec", config_dict=keys, run_dir=tmp_path / "run")
    costs = read_json(tmp_path / "run" / "costs.json")
    assert 1 < costs["preparation_seconds"] < costs["total_seconds"] - costs["training_seconds"]


def test_a_key_that_no_online_student_reads(build, caplog):
    build(distillation="online", teacher_cache=False)
    assert "teacher_cache without effect: distillation is online" in caplog.text


def test_costs_tell_what_recommending_needs(keys_of, taught_by, tmp_path):
    for mode, keys in (("offline", {"teacher": taught_by("positions")}), ("online", {})):
        run("SLMRec", config_dict=keys_of(distillation=mode, **keys), run_dir=tmp_path / mode)
    costs = {mode: read_json(tmp_path / mode / "costs.json") for mode in ("offline", "online")}
    assert costs["online"]["parameters_total"] > 1.5 * costs["offline"]["parameters_total"]
    assert costs["online"]["parameters_inference"] == costs["offline"]["parameters_inference"]
    heads = 8 * 16  # one, without bias
    assert costs["offline"]["parameters_inference"] == costs["offline"]["parameters_total"] - heads


# ---- bad input ----


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"distillation": "onlin"}, "distillation: 'onlin' is not one of offline, online.*online"),
        ({"pretrained_e4srec": "there"}, "pretrained_e4srec: a student begins as the first layers"),
        ({"distillation": "online", "teacher": "there"}, "teacher: with distillation: online the teacher is trained"),
        ({"distillation": "online", "distill_cos": 0, "distill_norm": 0}, "online needs distill_cos or distill_norm"),
        ({"distill": ["cos"]}, "key 'distill' no longer exists: a weight of 0 leaves a term out: distill_cos, "),
        ({"reference": ["distilation_sum"]}, "reference: .'distilation_sum'. unknown; there are"),
        ({"teacher_keys": {"user_llm_layers": 4, "blocks": 2}}, "teacher_keys: unknown key 'blocks' of E4SRec"),
        ({"teacher_keys": {"user_inter_num_interval": "[3,inf)"}}, "teacher_keys: user_inter_num_interval: .* other"),
        ({"item_table_keys": {"eval_args": {"split": {"RS": [8, 1, 1]}}}}, "item_table_keys: eval_args: .* other data"),
    ],
)
def test_wrong_keys(keys_of, keys, said):
    with pytest.raises(ConfigError, match=said):
        config = Config("SLMRec", config_dict=keys_of(**keys))
        config.spec.model.check_keys(config)


@pytest.mark.parametrize(
    "key, value", [("blocks", 0), ("distill_cos", -1), ("distill_norm", "much")]
)
def test_numbers_out_of_range(keys_of, key, value):
    with pytest.raises(ConfigError, match=f"{key}: "):
        Config("SLMRec", config_dict=keys_of(**{key: value}))


def test_blocks_that_do_not_fit_are_told_before_a_teacher_is_trained(keys_of, tmp_path):
    three = {**keys_of()["user_llm_config"], "num_hidden_layers": 3}
    of_the_config = {"teacher_keys": {"user_llm_layers": None}, "user_llm_config": three}
    for keys in ({"blocks": 4}, {"blocks": 2, "teacher_keys": {"user_llm_layers": 3}}, of_the_config):
        with pytest.raises(ConfigError, match="blocks: .*layers cannot be cut into"):
            run("SLMRec", config_dict=keys_of(cache_dir=str(tmp_path / "cache"), **keys), run_dir=tmp_path / "run")
        assert not list((tmp_path / "cache").glob("E4SRec-*")) and not (tmp_path / "run" / "best").exists()
        shutil.rmtree(tmp_path / "run", ignore_errors=True)


def test_a_student_deeper_than_its_teacher_is_told_before_one_is_trained(keys_of, tmp_path):
    six = {**keys_of()["user_llm_config"], "num_hidden_layers": 6}
    keys = {"user_llm_layers": 6, "user_llm_config": six, "teacher_keys": {"user_llm_layers": 4}}
    keys["cache_dir"] = str(tmp_path / "cache")
    with pytest.raises(ConfigError, match="a student of 6 layers has none of 4 to begin as"):
        run("SLMRec", config_dict=keys_of(**keys), run_dir=tmp_path / "run")
    assert not list((tmp_path / "cache").glob("E4SRec-*"))


@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.parametrize(
    "teacher, said",
    [
        ({"item_embed_dim": 16}, "the teacher's item_embed_dim would differ"),
        ({"instruction": "w3 w4 {items}"}, "the teacher's instruction would differ"),
        ({"lora_r": 3}, "the teacher's lora_r would differ"),
        ({"lora_target_modules": ["up_proj"]}, "the teacher's lora_target_modules would differ"),
        ({"user_llm_tuning": "full"}, "the teacher's user_llm_tuning would differ"),
        ({"user_llm_tuning": "ful"}, "user_llm_tuning: 'ful' is not one of"),
        ({"user_llm_layers": 9}, "user_llm_layers: 9, but the language model '.*' has only 4 layers"),
    ],
)
def test_keys_of_a_teacher_that_cannot_be_this_students(keys_of, tiny_llm, tmp_path, mode, teacher, said):
    llm = {"user_pretrain_dir": tiny_llm("llama", num_hidden_layers=4), "user_llm_init": True, "user_llm_config": None}
    keys = {**llm, "instruction": "w1 w2 {items}", "distillation": mode, "item_table": None}
    keys["teacher_keys"] = {"user_llm_layers": 4, **teacher}
    with pytest.raises(UserError, match=f"^teacher_keys: {said}"):
        run("SLMRec", config_dict=keys_of(cache_dir=str(tmp_path / "cache"), **keys), run_dir=tmp_path / "run")
    assert not (tmp_path / "cache").exists(), "told before anything is trained"


def test_another_language_model_than_the_teachers_is_told_by_its_sizes(keys_of, tiny_llm):
    other = {"user_pretrain_dir": tiny_llm("llama", num_hidden_layers=4, intermediate_size=24), "user_llm_layers": 4}
    config = Config("SLMRec", config_dict=keys_of(teacher_keys={**other, "user_llm_config": None}))
    with pytest.raises(ConfigError, match="the teacher's .*intermediate_size.* would differ"):
        config.spec.model.check_keys(config)


@pytest.mark.parametrize("heads", [0, 0.1])
def test_blocks_matter_only_where_they_are_compared(keys_of, heads):
    without = {"distill_cos": 0, "distill_norm": 0, "distill_heads": heads}
    keys = {**without, "blocks": 2, "user_llm_layers": 2, "teacher_keys": {"user_llm_layers": 3}}
    config = Config("SLMRec", config_dict=keys_of(**keys))
    config.spec.model.check_keys(config)
    config = Config("SLMRec", config_dict=keys_of(**{**keys, "distill_cos": 1}))
    with pytest.raises(ConfigError, match="blocks: the teacher's .*3 layers cannot be cut into 2"):
        config.spec.model.check_keys(config)


@pytest.mark.parametrize(
    "own, said",
    [
        ({"E4SRec.user_llm_layers": 3}, "blocks: the teacher's .E4SRec: user_llm_layers. 3 layers cannot be cut"),
        (
            {"E4SRec.user_llm_layers": 1, **{f"SLMRec.distill_{term}": 0 for term in ("cos", "norm", "heads")}},
            "user_llm_layers: a student of 2 layers has none of 1 to begin as",
        ),
        ({"E4SRec.lora_r": 3}, "E4SRec: the teacher's lora_r would differ"),
        ({"E4SRec.instruction": "w1 {items}"}, "E4SRec: the teacher's instruction would differ"),
        ({"SASRec.hidden_size": 16}, "item_embed_dim: 8, and the table of SASRec will have 16 numbers an item"),
        ({"SLMRec.teacher": "row:E4SREC"}, "SLMRec: teacher: row:E4SREC: there is no row E4SREC before it"),
        ({"model": ["SASRec", "SLMRec", "E4SRec"]}, "SLMRec: teacher: row:E4SRec: there is no row E4SRec before it"),
    ],
)
def test_rows_of_a_table_that_cannot_fit_are_told_before_any_is_trained(keys_of, tiny_llm, tmp_path, own, said):
    llm = {"user_pretrain_dir": tiny_llm("llama", num_hidden_layers=4), "user_llm_init": True, "user_llm_config": None}
    shared = {key: value for key, value in keys_of().items() if key in Config("SASRec", config_dict=keys_of()).settings}
    keys = {**shared, **llm, "SASRec.hidden_size": 8, "SASRec.n_heads": 2, "item_table": "row:SASRec"}
    keys |= {"E4SRec.user_llm_layers": 4, "SLMRec.user_llm_layers": 2}
    keys |= {"SLMRec.blocks": 2, "SLMRec.teacher": "row:E4SRec"}
    keys = {"model": ["SASRec", "E4SRec", "SLMRec"], "item_embed_dim": 8, **keys, **own, "sanity_rows": []}
    with pytest.raises(UserError, match=said):
        compare(None, config_dict=keys, run_dir=tmp_path / "table")
    assert not (tmp_path / "table").exists()


def test_a_refused_run_leaves_no_folder(keys_of, tmp_path):
    with pytest.raises(ConfigError, match="distillation: online needs"):
        keys = keys_of(distillation="online", distill_cos=0, distill_norm=0)
        run("SLMRec", config_dict=keys, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_begins_as_an_export_brings_its_language_model(build, keys_of, tmp_path):
    export_model(build()[0], tmp_path / "out")
    keys = keys_of(teacher_keys={"pretrained_e4srec": str(tmp_path / "out"), "user_llm_layers": 2}, item_table=None)
    config = Config("SLMRec", config_dict=keys)
    assert config.spec.model.needs(config)["teacher"][1]["user_llm_config"] is None
    config.spec.model.check_keys(config)


# ---- teachers that are refused ----


def test_teachers_that_do_not_fit(build, table, tmp_path):
    with pytest.raises(ConfigError, match="teacher: there is no finished run of E4SRec in .*nowhere"):
        build(teacher=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="teacher: .* is a run of SASRec, not of E4SRec"):
        build(teacher=table)
    with pytest.raises(ConfigError, match="blocks: this student's .*2 layers cannot be cut into 4 blocks"):
        build(blocks=4)
    with pytest.raises(ModelError, match="this student is not made as its teacher"):
        build(user_llm_layers=5, blocks=1, user_llm_config={**build()[2]["user_llm_config"], "num_hidden_layers": 5})


def test_a_teacher_of_another_split_is_refused(build):
    with pytest.raises(ConfigError, match="teacher: .* was trained on other data than this run: its training differ"):
        build(eval_args={"split": {"LS": "test_only"}, "order": "TO", "mode": "full", "group_by": "user"})


def test_a_teacher_whose_weights_mean_something_else(build):
    sizes = {"model_type": "llama", "vocab_size": 8, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4}
    changed = {**sizes, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8}
    with pytest.raises(ModelError, match="teacher: .*differ from this student's|not made as its teacher"):
        build(user_llm_config=changed)
    with pytest.raises(ModelError, match="teacher: its rms_norm_eps differ"):
        build(user_llm_config={**sizes, "num_attention_heads": 2, "num_key_value_heads": 2, "rms_norm_eps": 0.1})


@pytest.mark.parametrize(
    "sizes",
    [
        {"model_type": "gpt2", "n_layer": 4, "n_head": 2, "n_positions": 32},
        {"model_type": "gpt_neo", "num_layers": 4, "num_heads": 2, "attention_types": [[["global"], 4]]},
    ],
    ids=["gpt2", "gpt_neo"],
)
def test_a_language_model_with_another_name_for_its_depth(build, sizes):
    sizes = {"hidden_size": 16, **sizes, "vocab_size": 8}
    model, batch, *_ = build(distillation="online", user_llm_config=sizes, teacher_keys={"user_llm_layers": 4})
    assert model.llm.depth == 2 and torch.isfinite(model.calculate_loss(batch))


def test_keys_of_an_online_teacher(build):
    with pytest.raises(ConfigError, match="teacher_keys: unknown key 'user_llm_layer' of E4SRec; did you mean"):
        build(distillation="online", teacher_keys={"user_llm_layer": 4})
    with pytest.raises(ConfigError, match="teacher_keys: epochs: beside an online student the teacher differs in"):
        build(distillation="online", teacher_keys={"user_llm_layers": 4, "epochs": 3})
    with pytest.raises(ModelError, match="^teacher_keys: user_llm_layers: 8, but"):  # the default
        build(distillation="online", teacher_keys={"instruction": None})
