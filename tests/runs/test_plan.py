"""The plan of a training: numbers that can be counted another way."""

import json
from pathlib import Path

import pytest
import torch

from recbole_hllm import Config, create_dataset, data_preparation, run
from recbole_hllm.cli import main
from recbole_hllm.config.keys.hllm import HLLMKeys
from recbole_hllm.config.parsing import read_yaml
from recbole_hllm.model.hllm.language_models import user_spec
from recbole_hllm.model.slmrec.teacher import FreshStates
from recbole_hllm.nn.backbone import load_backbone
from recbole_hllm.runs import plan as module
from recbole_hllm.runs.plan import plan, plan_text
from recbole_hllm.training.trainer import Trainer


@pytest.fixture
def settings(settings_of):
    return {**settings_of("HLLM"), "model": "HLLM", "num_negatives": 8, "epochs": 3}


def build(settings):
    config = Config("HLLM", config_dict=settings)
    train, *_ = data_preparation(config, create_dataset(config))
    return config, train, config.spec.model(config, train._dataset)


def test_parameters_and_batches_are_the_models(settings):
    result, (_, train, model) = plan(config_dict=settings), build(settings)
    counts = result["parameters"]
    assert counts["all"] == (sum(p.numel() for p in model.parameters()),) * 2
    assert counts["user_encoder"][0] == sum(p.numel() for p in model.user_encoder.parameters())
    assert sum(total for part, (total, _) in counts.items() if part != "all") == counts["all"][0]
    assert result["batches"] == len(train)


def test_tokens_and_positions_are_those_of_the_batches(settings, monkeypatch):
    result, (_, train, model) = plan(config_dict=settings), build(settings)
    torch.manual_seed(0)
    positions = sum(int((rows["item_id_list"] != 0).sum()) for rows in train)
    assert result["positions"] == positions, "an epoch has every window once, whatever the order"
    longest = sum(len(model.catalogue.lookup(torch.arange(1, model.n_items))[0]) for _ in train)
    assert 0 < result["item_tokens"] <= longest


def distinct_items(train):
    """Those of each batch of an epoch."""
    for rows in train:
        ids = torch.cat([rows["item_id_list"].reshape(-1), rows["neg_item_id"].reshape(-1)])
        yield set(ids.tolist()) - {0}


def attention(model, train):
    """FLOPs of an epoch's attention between the tokens of items, forward: each pair meets twice in each layer."""
    reading = model.item_reading()
    pairs = sum(int(reading.tokens[item]) ** 2 for items in distinct_items(train) for item in items)
    return 2 * 2 * pairs * reading.hidden_size * reading.layers


def matrices_of_items(model, result, train):
    """Numbers of matrices that read something in an epoch: each token, or, of the head, one vector an item."""
    head = model.item_encoder.projection.weight.numel()
    return (matrices(model.item_encoder) - head) * result["item_tokens"] + head * sum(map(len, distinct_items(train)))


def matrices(part):
    names = {n for n, m in part.named_modules() if isinstance(m, torch.nn.Embedding)}
    return sum(p.numel() for n, p in part.named_parameters() if p.dim() > 1 and n.rpartition(".")[0] not in names)


def test_only_live_items_are_read(settings):
    result, (_, train, model) = plan(config_dict={**settings, "live_items": 2}), build(settings)
    longest = int(model.item_reading().tokens.max())
    assert 0 < result["item_tokens"] <= 2 * longest * len(train) < plan(config_dict=settings)["item_tokens"]


def test_flops_are_six_for_each_weight_and_token(settings):
    result, (_, train, model) = plan(config_dict=settings), build(settings)
    # [ITEM] is a (1, 1, H) parameter and counts as a matrix: a millionth of a real model.
    expected = 3 * attention(model, build(settings)[1])
    expected += 6 * matrices_of_items(model, result, build(settings)[1])
    expected += 6 * matrices(model.user_encoder) * result["positions"]
    targets = sum(int((rows["item_id_list"][:, 1:] != 0).sum()) for rows in train)
    # Scores of 8 negatives, and the filter's cosines.
    expected += (6 + 2) * targets * 8 * model.user_encoder.hidden_size
    assert result["flops"] == pytest.approx(expected)
    again = plan(config_dict={**settings, "gradient_checkpointing": True})
    assert again["flops"] / again["item_tokens"] > 1.2 * result["flops"] / result["item_tokens"]


def test_memory_of_weights_and_optimizer(settings):
    result = plan(config_dict=settings)
    total = result["parameters"]["all"][0]
    assert result["memory_bytes"]["weights"] + result["memory_bytes"]["gradients_and_optimizer"] == 16 * total
    assert result["peak_memory_bytes"] > result["memory_bytes"]["weights"]


def test_memory_of_weights_in_bf16(settings):
    result = plan(config_dict={**settings, "weights": "bf16", "precision": "bf16"})
    model = build(settings)[2]
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    total = result["parameters"]["all"][0]
    assert 0 < linear < total
    assert result["memory_bytes"]["weights"] == 4 * (total - linear) + 2 * linear
    assert result["memory_bytes"]["gradients_and_optimizer"] == 12 * total + 4 * linear


def test_timed_steps_are_whole_ones(settings, tmp_path):
    """With weights in bf16 the optimizer steps others than those that have gradients."""
    config, train, model = build({**settings, "weights": "bf16", "precision": "bf16"})
    trainer = Trainer(config, model, tmp_path)
    before = [master.detach().clone() for _, master in trainer.engine.masters.pairs]
    assert module._time_steps(trainer, train)["step"] > 0
    for (weight, master), old in zip(trainer.engine.masters.pairs, before, strict=True):
        assert weight.grad is None and master in trainer.optimizer.state and not torch.equal(master, old)


def test_memory_of_several_processes(settings, capsys):
    result = plan(config_dict=settings, processes=4)
    total, text = result["parameters"]["all"][0], plan_text(result)
    assert result["held"]["stage 2"].on_device == 4 * total + 4 * total / 4 + 12 * total / 4
    assert "memory of each of 4 processes" in text
    assert [name for name in result["held"] if f"    {name} " in text] == list(result["held"])
    assert "processes" not in plan_text(plan(config_dict=settings))


@pytest.mark.parametrize("value", ["0", "-1", "two", "True", "1.5"])
def test_a_wrong_number_of_processes(value, capsys):
    assert main(["plan", "--model=HLLM", f"--processes={value}"]) == 2
    assert f"--processes: '{value}' is no number of processes" in capsys.readouterr().err


def test_time_is_that_of_the_steps(settings):
    seconds = plan(config_dict=settings)["seconds"]
    batches = len(build(settings)[1])
    assert seconds["epochs"] == 3 and seconds["step"] > 0
    assert seconds["epoch"] == pytest.approx(seconds["step"] * batches)
    assert seconds["all"] == pytest.approx(3 * seconds["epoch"])


def test_a_limit_of_steps_limits_the_time(settings):
    batches = len(build(settings)[1])
    limited = plan(config_dict={**settings, "max_steps": 2, "gradient_accumulation_steps": 2})
    seconds = limited["seconds"]
    assert seconds["all"] == pytest.approx(min(4, 3 * batches) * seconds["step"])
    assert "for all 2 steps (max_steps)" in plan_text(limited)
    free = plan(config_dict={**settings, "max_steps": 1000})
    assert free["seconds"]["all"] == pytest.approx(3 * free["seconds"]["epoch"])
    assert "for all 3 epochs" in plan_text(free)


def test_a_model_too_large_for_this_machine_is_not_built(settings, monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda device: 1)
    monkeypatch.setattr(module, "_timed", None)  # would fail if called
    result = plan(config_dict=settings)
    assert result["seconds"] is None and "does not fit" in plan_text(result)


def test_the_command_line_plans_every_model_and_leaves_nothing(settings, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {**settings, "train_batch_size": 64}
    words = [f"--{key}={value}" for key, value in settings.items() if key not in ("model", "user_llm_config")]
    config = f"--HLLM.user_llm_config={settings['user_llm_config']}" if "user_llm_config" in settings else "--plan"
    assert main(["--model=HLLM,SASRec", "--plan", *words, config]) == 0
    printed = capsys.readouterr().out
    assert "HLLM on toy" in printed and "SASRec on toy" in printed and "item tokens an epoch" in printed
    assert not list(tmp_path.glob("runs*"))


@pytest.mark.parametrize("model", ["E4SRec", "SLMRec"])
@pytest.mark.parametrize("online", [False, True])
def test_what_has_to_come_first_is_not_trained(settings_of, model, online, tmp_path):
    keys = {**settings_of(model), "cache_dir": str(tmp_path / "cache"), "epochs": 3}
    if online:
        keys |= {"distillation": "online"} if model == "SLMRec" else {"training_rows": "prefix"}
    result = plan(model, config_dict=keys)
    assert not (tmp_path / "cache").exists()
    parts, layer = result["parameters"], 4 * 16 * 16 + 3 * 16 * 32 + 2 * 16
    assert parts["item_table"] == (13 * 8, 0) and parts["score"] == (16 * 8, 16 * 8)
    assert parts["llm"] == ((2 if model == "SLMRec" else 4) * layer + 16,) * 2
    assert ("teacher" in parts) == (model == "SLMRec" and online)
    assert result["seconds"]["step"] > 0 and result["seconds"]["all"] > result["seconds"]["epoch"]


def test_it_says_what_would_be_trained_first(settings_of, tmp_path):
    keys = {**settings_of("SLMRec"), "cache_dir": str(tmp_path / "cache"), "epochs": 1}
    result = plan("SLMRec", config_dict=keys)
    assert result["first"] == [("item_table", "SASRec"), ("teacher", "E4SRec")]
    assert "trained first, once      SASRec (item_table), then E4SRec (teacher): not counted" in plan_text(result)
    table = {key: value for key, value in settings_of("E4SRec").items()}
    run("E4SRec", config_dict={**table, "cache_dir": keys["cache_dir"], "epochs": 1}, run_dir=tmp_path / "run")
    assert plan("E4SRec", config_dict={**table, "cache_dir": keys["cache_dir"], "epochs": 1})["first"] == []
    assert plan("SLMRec", config_dict={**keys, "item_table": "row:SASRec", "teacher": "row:E4SRec"})["first"] == []
    assert plan("SLMRec", config_dict={**keys, "item_table": "row:SASRec"})["first"] == [("teacher", "E4SRec")]
    assert plan("SASRec", config_dict=settings_of("SASRec"))["first"] == []


@pytest.mark.parametrize("cached", [True, False])
def test_a_teacher_that_reads_every_batch_again_is_timed(settings_of, monkeypatch, cached):
    depths, read_again = [], FreshStates.__call__

    def recorded(states, *arguments):
        depths.append(states.teacher.llm.depth)
        return read_again(states, *arguments)

    monkeypatch.setattr(FreshStates, "__call__", recorded)
    plan("SLMRec", config_dict={**settings_of("SLMRec"), "teacher_cache": cached})
    assert set(depths) == (set() if cached else {4})


def test_a_teacher_that_is_a_row_to_come(settings_of):
    plan("SLMRec", config_dict={**settings_of("SLMRec"), "teacher": "row:E4SRec", "teacher_cache": False})


def test_an_instruction_is_read_with_every_row(settings_of, tiny_llm):
    llm = {"user_pretrain_dir": tiny_llm("llama"), "user_llm_init": True, "user_llm_config": None}
    keys = {**settings_of("E4SRec"), **llm, "training_rows": "user"}
    bare, words = plan("E4SRec", config_dict=keys), plan("E4SRec", config_dict={**keys, "instruction": "w1 {items} w2"})
    assert words["positions"] - bare["positions"] == 3 * 14, "[BOS] w1 ... w2 around each of 14 users"


def test_a_frozen_item_llm_costs_no_tokens(settings, tiny_llm):
    llm = tiny_llm("llama")
    keys = {**settings, "item_pretrain_dir": llm, "item_llm_layers": None, "item_llm_tuning": "frozen"}
    result = plan(config_dict={**keys, "item_emb_token_n": 0})
    assert result["item_tokens"] == 0 and result["seconds"]["step"] > 0
    assert "item_encoder" not in result["parameters"], "equal widths need no projection, and the LLM is gone"


def test_recomputing_items_is_one_more_forward_pass(settings):
    once, twice = plan(config_dict=settings), plan(config_dict={**settings, "recompute_items": True})
    model = build(settings)[2]
    again = 2 * matrices_of_items(model, once, build(settings)[1]) + attention(model, build(settings)[1])
    assert twice["flops"] - once["flops"] == pytest.approx(again)
    assert once["tokens_again"] == 0 and twice["tokens_again"] == twice["item_tokens"]
    assert "computed again" not in plan_text(once)
    assert "computed again                   100% of them" in plan_text(twice)
    # A batch of the toy data is one chunk; what works on it is there once either way.
    assert 0 < twice["memory_bytes"]["activations"] <= once["memory_bytes"]["activations"]


def test_activations_grow_with_the_number_of_items_until_they_are_computed_again(settings):
    settings |= {"train_batch_size": 1, "item_chunk_tokens": 30}
    few, many = (plan(config_dict={**settings, "num_negatives": number}) for number in (1, 9))
    assert many["memory_bytes"]["activations"] > 1.2 * few["memory_bytes"]["activations"]
    again = plan(config_dict={**settings, "num_negatives": 9, "recompute_items": True})
    assert again["memory_bytes"]["activations"] < few["memory_bytes"]["activations"]


@pytest.mark.parametrize("name", ["DIN", "FM"])
def test_models_of_recbole_on_labelled_rows(name, tmp_path, write_dataset):
    pairs = [(user, step) for step in range(9) for user in range(8)]
    rows = [(f"u{user}", f"i{(user + step) % 7}", 3 + (user + step) % 3, 10 * step + user) for user, step in pairs]
    write_dataset(tmp_path, "liked", rows, header="user_id:token\titem_id:token\trating:float\ttimestamp:float")
    keys = {"data_path": str(tmp_path), "use_gpu": False, "MAX_ITEM_LIST_LENGTH": 4, "train_batch_size": 16}
    result = plan(name, "liked", config_dict=keys)
    assert result["item_tokens"] == 0 and result["positions"] > 0 and result["seconds"]["step"] > 0


def test_plan_takes_no_value(capsys):
    assert main(["--model=HLLM", "--dataset=toy", "--plan=maybe"]) == 2
    assert "--plan takes no value" in capsys.readouterr().err


# ---- recipes: each builds, at its full size, without memory for its weights ----

RECIPES = sorted((Path(__file__).parents[2] / "properties" / "recipes").glob("HLLM-[17]B*.yaml"))
# The architectures of the models that the recipes name, as Llamas: Baichuan2-7B differs from one in its code only.
SIZES = {
    "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T": {
        "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
        "num_key_value_heads": 4, "vocab_size": 32000,
    },
    "baichuan-inc/Baichuan2-7B-Base": {
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "vocab_size": 125696,
    },
}  # fmt: skip


def body(hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads, vocab_size):
    """Weights of a Llama without word embeddings and head, counted from its description."""
    keys_and_values = 2 * hidden_size * (hidden_size // num_attention_heads) * num_key_value_heads
    layer = 2 * hidden_size**2 + keys_and_values + 3 * hidden_size * intermediate_size + 2 * hidden_size
    return num_hidden_layers * layer + hidden_size


def test_there_are_recipes():
    assert len(RECIPES) == 5


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_builds_with_the_size_it_says(recipe, tiny_llm, settings_of, tmp_path):
    named = Config("HLLM", "toy", [recipe], {"data_path": settings_of("HLLM")["data_path"]})["item_pretrain_dir"]
    llm = Path(tiny_llm("llama"))
    described = json.loads((llm / "config.json").read_text()) | SIZES[named]
    described.pop("head_dim", None)
    (llm / "config.json").write_text(json.dumps(described))
    keys = {
        "data_path": settings_of("HLLM")["data_path"], "item_pretrain_dir": str(llm), "user_pretrain_dir": str(llm),
        "text_keys": ["title"], "attn_implementation": "sdpa", "use_gpu": False, "cache_dir": str(tmp_path / "cache"),
    }  # fmt: skip
    config = Config("HLLM", "toy", [recipe], keys)
    train, *_ = data_preparation(config, create_dataset(config))
    model = config.spec.outline(config, train._dataset)
    sizes = SIZES[named]
    words = sizes["vocab_size"] * sizes["hidden_size"]
    assert sum(p.numel() for p in model.item_encoder.parameters()) == body(**sizes) + words + sizes["hidden_size"]
    assert sum(p.numel() for p in model.user_encoder.parameters()) == body(**sizes)
    assert all(p.is_meta for p in model.parameters())
    assert config["recompute_items"] is None, "what fits is kept"
    rows = next(iter(train))
    negatives = config["num_negatives"] or len(rows) * (config["MAX_ITEM_LIST_LENGTH"] + 1)
    assert rows["neg_item_id"].shape == (1, negatives)
    assert model.item_encoder.item_emb_tokens.shape == (1, 1, sizes["hidden_size"])


# ---- ablations ----

ABLATION = RECIPES[0].parents[1] / "benchmark" / "hllm_ablation.yaml"
ROWS = read_yaml(ABLATION)["model"]


def test_every_ablation_differs_from_the_plain_model():
    keys = read_yaml(ABLATION)
    variants = [row for row in ROWS if "@" in row]
    assert len(variants) == len(set(variants)) >= 14
    assert {key.partition(".")[0] for key in keys if "@" in key} == set(variants)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_ablations_builds(row, settings_of):
    """Its config, and its user LLM without memory for weights; the Item LLMs named there are packages of their own."""
    keys = {"data_path": settings_of("HLLM")["data_path"], "use_gpu": False}
    config = Config(row, "toy", [ABLATION], keys)
    if config["model"] == "HLLM":
        with torch.device("meta"):
            layers = load_backbone(user_spec(HLLMKeys.of(config))).config.num_hidden_layers
        assert layers == (4 if row == "HLLM@user-4-layers" else 2)


@pytest.mark.parametrize("content", ["bert", "id"])
def test_learn_is_planned_with_the_language_model_it_reads_with(settings_of, tiny_llm, content):
    keys = {"content": content, "item_pretrain_dir": tiny_llm("bert"), "text_keys": ["title"]}
    result = plan("LEARN", config_dict={**settings_of("LEARN"), **keys})
    assert set(result["parameters"]) - {"content"} == {"user_tower", "all"}, "content is computed once, in no training"
    assert result["seconds"]["step"] > 0


@pytest.mark.parametrize("model", ["LEARNScorer", "LEARNRanker"])
def test_rankers_are_planned_before_their_learn_is_trained(settings_of, model, tmp_path):
    own = {"content": "id"} if model == "LEARNScorer" else {}
    result = plan(model, config_dict={**settings_of(model), **own, "cache_dir": str(tmp_path)})
    assert result["parameters"]["all"][0] > 0 and not list(tmp_path.glob("LEARNScorer-*"))


def test_a_ranker_is_planned_with_a_learn_in_the_precision_of_the_device(settings_of, tmp_path):
    keys = settings_of("LEARNRanker") | {"cache_dir": str(tmp_path)}
    auto = {**keys["learn_keys"], "precision": "auto"}
    assert plan("LEARNRanker", config_dict={**keys, "learn_keys": auto})["parameters"]["all"][0] > 0
