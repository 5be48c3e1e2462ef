"""E4SRec on toy data: its loss against a plain slow formula, what of it is trained, and what it exports."""

import pytest
import torch
from safetensors.torch import load_file

from recbole_hllm import run
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.model.slmrec import e4srec
from recbole_hllm.nn.backbone import load_tokenizer
from recbole_hllm.nn.negative_blocks import contrast_in_blocks
from recbole_hllm.runs.export import export_model
from recbole_hllm.training.trainer import Trainer

BEFORE, AFTER = "w1 w2 w3", "w4 w5"
INSTRUCTION = f"{BEFORE} {{items}} {AFTER}"
ROWS = ("positions", "prefix", "user")
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def from_export(folder, **own):
    """Keys that start from an export."""
    return {"pretrained_e4srec": str(folder), "item_table": None, "user_llm_config": None, **own}


def plain_output(model, items):
    """Output behind everything read of one history, by transformers and without padding."""
    vectors = torch.stack([model.input_proj(model.item_table.weight[item]) for item in items])
    inputs = torch.cat([model.llm.before, vectors, model.llm.after])[None]
    return model.llm.backbone(inputs_embeds=inputs).last_hidden_state[0, -1]


def plain_loss(model, pairs):
    """Mean over (history, target) of -log softmax of the products with every item but padding."""
    losses = []
    for items, target in pairs:
        user = model.score.weight @ plain_output(model, items)
        logits = torch.stack([user @ model.item_table.weight[item] for item in range(1, model.n_items)])
        losses.append(logits.logsumexp(0) - logits[target - 1])
    return torch.stack(losses).mean()


def pairs_of(rows, training_rows):
    """(history, target) of a batch."""
    if training_rows != "positions":
        lengths = rows["item_length"].tolist()
        histories = [items[:n] for items, n in zip(rows["item_id_list"].tolist(), lengths, strict=True)]
        return list(zip(histories, rows["item_id"].tolist(), strict=True))
    pairs = []
    for items in rows["item_id_list"].tolist():
        real = items[: items.index(0)] if 0 in items else items
        pairs += [(real[:place], real[place]) for place in range(1, len(real))]
    return pairs


# ---- the loss ----


@pytest.mark.parametrize("rows", ROWS)
def test_the_loss_is_the_plain_formula(build, rows):
    built = build(training_rows=rows)
    pairs = pairs_of(built.rows, rows)
    assert len({len(items) for items, _ in pairs}) >= (2 if rows == "user" else 4)
    loss, expected = built.model.calculate_loss(built.rows), plain_loss(built.model, pairs)
    torch.testing.assert_close(loss, expected, **TOLERANCE)
    assert built.model.loss_terms == {"ce": loss.item()}
    trained = [weight for weight in built.model.parameters() if weight.requires_grad and weight.numel()]
    for ours, plain in zip(torch.autograd.grad(loss, trained), torch.autograd.grad(expected, trained), strict=True):
        torch.testing.assert_close(ours, plain, **TOLERANCE)


@pytest.mark.parametrize("rows", ["prefix", "user"])
def test_the_loss_with_text_around_the_items(build, pretrained, rows):
    built = build(training_rows=rows, instruction=INSTRUCTION, user_llm_tuning="full", **pretrained)
    assert built.model.instruction_length == 1 + 3 + 2
    expected = plain_loss(built.model, pairs_of(built.rows, rows))
    torch.testing.assert_close(built.model.calculate_loss(built.rows), expected, **TOLERANCE)


def test_every_position_with_text_before_the_items(build, pretrained):
    built = build(instruction=f"{BEFORE} {{items}}", user_llm_tuning="full", **pretrained)
    expected = plain_loss(built.model, pairs_of(built.rows, "positions"))
    torch.testing.assert_close(built.model.calculate_loss(built.rows), expected, **TOLERANCE)


def test_the_table_tells_items_apart(build):
    """Losses would agree if all rows of the table were alike, too."""
    table = build().model.item_table.weight
    assert torch.pdist(table[1:]).min() > 0.05 and table[0].abs().max() == 0


def test_rows_of_each_kind(build):
    """All (history, target) of the training data; the last of each user only; what windows hold is the same."""
    seen = {}
    for rows in ROWS:
        built = build(training_rows=rows, train_batch_size=200)
        seen[rows] = sorted((tuple(items), target) for items, target in pairs_of(built.rows, rows))
        users = built.rows["user_id"].tolist()
        assert built.config.spec.rows.name == {"positions": "window", "prefix": "prefix", "user": "last"}[rows]
    data = built.loaders[0]._dataset
    walks = [data.sequences.items[begin:end].tolist() for begin, end in
             zip(data.sequences.offsets[1:-1], data.sequences.offsets[2:], strict=True)]  # fmt: skip
    training = [walk[:-2] for walk in walks]
    assert seen["prefix"] == sorted(
        (tuple(walk[max(0, place - 5) : place]), walk[place]) for walk in training for place in range(1, len(walk))
    )
    assert seen["user"] == sorted((tuple(walk[-6:-1]), walk[-1]) for walk in training)
    assert sorted(users) == list(range(1, 15)), "one row a user"
    targets = sorted(target for items, target in seen["prefix"])
    assert sorted(target for items, target in seen["positions"]) == targets, "each once"


def test_the_last_row_of_each_user_by_time(build):
    """Validation and test are the same whatever is trained on."""
    parts = {rows: build(training_rows=rows).loaders[1:] for rows in ROWS}
    for phase in (0, 1):
        histories = [next(iter(parts[rows][phase]))[0]["item_id_list"] for rows in ROWS]
        assert torch.equal(histories[0], histories[1]) and torch.equal(histories[0], histories[2])


def test_ready_made_histories_have_one_user_row_too(build, write_dataset, tmp_path):
    """Files of ``benchmark_filename``: the row with the latest target, wherever it stands."""
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp:float"
    train = [("a", "i1", "i2", 1), ("a", "i1 i2 i3", "i4", 3), ("b", "i5 i1", "i3", 7), ("a", "i1 i2", "i3", 2)]
    write_dataset(tmp_path, "made", train, header=header, suffix="train.inter")
    for suffix, time in (("valid", 8), ("test", 9)):
        rows = [("a", "i1 i2 i3 i4", "i5", time), ("b", "i5 i1 i3", "i4", time)]
        write_dataset(tmp_path, "made", rows, header=header, suffix=f"{suffix}.inter")
    run_keys = {
        "data_path": str(tmp_path), "dataset": "made", "benchmark_filename": ["train", "valid", "test"], "topk": [3],
        "valid_metric": "MRR@3", "alias_of_item_id": ["item_id_list"], "item_embed_dim": 8, "hidden_size": 8,
        "load_col": {"inter": ["user_id", "item_id_list", "item_id", "timestamp"]},
    }  # fmt: skip
    table = {key: value for key, value in run_keys.items() if key != "item_embed_dim"}
    run("SASRec", config_dict={**table, "epochs": 1, "show_progress": False, "n_heads": 1}, run_dir=tmp_path / "run")
    del run_keys["hidden_size"]
    for rows, count in (("user", 2), ("prefix", 4)):
        built = build(**run_keys, training_rows=rows, item_table=str(tmp_path / "run"))
        data = built.loaders[0]._dataset
        named = [data.id2token("item_id", items).tolist() for items, _ in pairs_of(built.rows, rows)]
        assert len(named) == count
        if rows == "user":
            assert sorted(named) == [["i1", "i2", "i3"], ["i5", "i1"]]
        assert built.model.calculate_loss(built.rows).isfinite()


def test_logits_of_some_positions_at_a_time(build, monkeypatch):
    """What a large catalogue needs changes neither the loss nor its gradients."""
    built = build()
    whole = built.model.calculate_loss(built.rows)
    whole.backward()
    trained = {name: weight for name, weight in built.model.named_parameters() if weight.grad is not None}
    gradients = {name: weight.grad.clone() for name, weight in trained.items()}
    built.model.zero_grad()
    monkeypatch.setattr(e4srec, "MAX_LOGITS", 3 * built.model.n_items)
    seen, heads = [], []

    def watched(outputs, positive, negatives, remove, at_once):
        def removed(logits, part):
            seen.append(len(logits))
            return remove(logits, part)

        return contrast_in_blocks(outputs, positive, negatives, removed, at_once)

    monkeypatch.setattr(e4srec, "contrast_in_blocks", watched)
    built.model.score.register_forward_hook(lambda *_: heads.append(1))
    parts = built.model.calculate_loss(built.rows)
    parts.backward()
    torch.testing.assert_close(parts, whole)
    for name, weight in trained.items():
        torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-4, atol=1e-6)
    assert max(seen) == 3 and len(seen) > 2
    assert len(heads) == 1  # where weights are gathered for a call, each process must make as many


# ---- scores ----


@pytest.mark.parametrize("around", [False, True], ids=["items", "words"])
def test_scores_are_products_with_the_table(build, pretrained, around):
    built = build(**({"instruction": INSTRUCTION, "training_rows": "user", **pretrained} if around else {}))
    rows = next(iter(built.loaders[2]))[0]
    with torch.no_grad():
        scores = built.model.full_sort_predict(rows)
        for row, (items, _) in enumerate(pairs_of(rows, "prefix")):
            user = built.model.score.weight @ plain_output(built.model, items)
            torch.testing.assert_close(scores[row], user @ built.model.item_table.weight.T, **TOLERANCE)


def test_a_longer_history_in_evaluation_only(build):
    built = build(MAX_ITEM_LIST_LENGTH_TEST=7)
    rows = next(iter(built.loaders[2]))[0]
    assert rows["item_length"].max() == 7 and built.rows["item_id_list"].shape[1] == 6
    with torch.no_grad():
        scores = built.model.full_sort_predict(rows)
        row = int(rows["item_length"].argmax())
        user = built.model.score.weight @ plain_output(built.model, rows["item_id_list"][row].tolist())
    torch.testing.assert_close(scores[row], user @ built.model.item_table.weight.T, **TOLERANCE)


def test_the_padding_item_never_has_probability(build):
    model = build().model
    outputs = torch.randn(5, model.llm.hidden_size)
    probability = model.logits(outputs).softmax(-1)
    assert (probability[:, 0] == 0).all() and (probability[:, 1:] > 0).all()
    head = torch.nn.Linear(model.llm.hidden_size, 8)
    assert (model.logits(outputs, head).softmax(-1)[:, 0] == 0).all()
    assert not torch.equal(model.logits(outputs, head), model.logits(outputs))


def test_an_empty_history_has_scores(build, pretrained):
    for own in ({}, {"instruction": INSTRUCTION, "training_rows": "user", **pretrained}):
        built = build(**own)
        rows = next(iter(built.loaders[2]))[0]
        alone = built.model.full_sort_predict(rows[1:3])
        rows["item_id_list"][0], rows["item_length"][0] = 0, 0
        scores = built.model.full_sort_predict(rows[:3])
        assert scores.isfinite().all() and scores[0].std() > 0
        torch.testing.assert_close(scores[1:], alone, **TOLERANCE)


def test_scores_in_training_are_float32_whatever_the_precision(build):
    model = build().model
    outputs = torch.randn(3, model.llm.hidden_size)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, expected = model.logits(outputs), model.score(outputs)
    assert expected.dtype == torch.bfloat16 and logits.dtype == torch.float32
    torch.testing.assert_close(logits[:, 1:], expected.float() @ model.item_table.weight[1:].T)


# ---- what is trained ----


def moved_by_a_step(built):
    """Names of the weights that a step of the Trainer's optimizer changes, and of those with a gradient."""
    before = {name: weight.detach().clone() for name, weight in built.model.named_parameters()}
    trainer = Trainer(built.config, built.model.train(), "unused")
    trainer.train_batch(built.rows)
    with_gradient = {name for name, weight in built.model.named_parameters() if weight.grad is not None}
    trainer.optimizer.step()
    after = built.model.named_parameters()
    return {name for name, weight in after if not torch.equal(weight, before[name])}, with_gradient


def test_the_table_is_frozen_and_all_else_trained(build):
    built = build(learning_rate=0.1)
    moved, with_gradient = moved_by_a_step(built)
    everything = {name for name, weight in built.model.named_parameters() if weight.numel()}
    assert moved == everything - {"item_table.weight"} and "item_table.weight" not in with_gradient
    assert not built.model.item_table.weight.requires_grad


def test_only_additions_and_projections_are_trained_with_lora(build, pretrained):
    built = build(learning_rate=0.1, instruction=INSTRUCTION, training_rows="user", lora_r=2, **pretrained)
    for name, weight in built.model.named_parameters():  # as after some steps: the addition starts as 0
        if ".lora_B." in name:
            torch.nn.init.normal_(weight)
    moved, with_gradient = moved_by_a_step(built)
    additions = {name for name, _ in built.model.named_parameters() if ".lora_" in name}
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name in additions}
    assert layers == {"gate_proj", "up_proj", "down_proj"}, "lora_target_modules"
    assert moved == with_gradient == additions | {"input_proj.weight", "input_proj.bias", "score.weight"}


def test_only_projections_are_trained_with_a_frozen_language_model(build, pretrained):
    built = build(learning_rate=0.1, user_llm_tuning="frozen", **pretrained)
    assert moved_by_a_step(built)[0] == {"input_proj.weight", "input_proj.bias", "score.weight"}


def test_words_are_trained_with_the_rest_of_the_language_model(build, pretrained):
    keys = {"learning_rate": 0.1, "training_rows": "user", "user_llm_tuning": "full", **pretrained}
    built = build(instruction=INSTRUCTION, **keys)
    assert {"llm.before", "llm.after"} <= moved_by_a_step(built)[0]


def test_the_instruction_in_tokens(build, pretrained):
    tokenizer = load_tokenizer(pretrained["user_pretrain_dir"])
    words = load_file(f"{pretrained['user_pretrain_dir']}/model.safetensors")["model.embed_tokens.weight"]
    model = build(instruction=INSTRUCTION, training_rows="user", **pretrained).model
    before = [tokenizer.bos_token_id, *tokenizer.convert_tokens_to_ids(["w1", "w2", "w3"])]
    assert torch.equal(model.llm.before, words[before])
    assert torch.equal(model.llm.after, words[tokenizer.convert_tokens_to_ids(["w4", "w5"])])
    model = build(instruction="{items} w4", training_rows="user", **pretrained).model
    assert torch.equal(model.llm.before, words[[tokenizer.bos_token_id]]) and len(model.llm.after) == 1
    model = build(**pretrained).model
    assert len(model.llm.before) == len(model.llm.after) == 0


# ---- exports ----


def scores_of(model, loader):
    with torch.no_grad():
        return torch.cat([model.full_sort_predict(rows[0]) for rows in loader])


@pytest.mark.parametrize("how", ["scratch", "lora", "instruction"])
def test_an_export_scores_as_the_model_does(build, pretrained, tmp_path, how):
    own = {"scratch": {}, "lora": {**pretrained, "lora_r": 2},
           "instruction": {**pretrained, "instruction": INSTRUCTION, "training_rows": "user"}}[how]  # fmt: skip
    built = build(**own)
    for name, weight in built.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=0.3)
    expected = scores_of(built.model, built.loaders[2])
    export_model(built.model, tmp_path / "export")
    names = {path.name for path in (tmp_path / "export" / "user_llm").iterdir()}
    assert names == {"config.json", "model.safetensors"}
    assert not any("lora" in name for name in load_file(tmp_path / "export" / "user_llm" / "model.safetensors"))
    rows = own.get("training_rows", "positions")
    again = build(**from_export(tmp_path / "export", training_rows=rows, seed=7))
    torch.testing.assert_close(scores_of(again.model, again.loaders[2]), expected, **TOLERANCE)
    torch.testing.assert_close(scores_of(built.model, built.loaders[2]), expected, **TOLERANCE)
    assert again.model.instruction_length == built.model.instruction_length
    assert again.model.inference_parameters() == built.model.inference_parameters()
    tuned = build(**from_export(tmp_path / "export", training_rows=rows, user_llm_tuning="lora"))
    torch.testing.assert_close(scores_of(tuned.model, tuned.loaders[2]), expected, **TOLERANCE)


def test_a_run_that_starts_from_an_export(build, keys, tmp_path):
    """It needs no other run first; its own folder is read back with the export beside it."""
    export_model(build().model, tmp_path / "export")
    own = from_export(tmp_path / "export", cache_dir=str(tmp_path / "cache"), epochs=1)
    result = run("E4SRec", config_dict=keys(**own), run_dir=tmp_path / "run")
    assert not (tmp_path / "cache").exists()
    again = run(config_dict={"evaluate_only": True}, run_dir=tmp_path / "run")
    assert again["test_result"] == result["test_result"]


def test_an_export_with_fewer_layers(build, tmp_path):
    export_model(build().model, tmp_path / "export")
    model = build(**from_export(tmp_path / "export", user_llm_layers=2)).model
    assert model.llm.depth == 2


def test_an_export_of_another_split_is_told(build, tmp_path, caplog):
    export_model(build().model, tmp_path / "export")
    build(**from_export(tmp_path / "export"))
    assert "was trained on other interactions" not in caplog.text
    split = {"split": {"LS": "test_only"}, "order": "TO", "mode": "full", "group_by": "user"}
    build(**from_export(tmp_path / "export", eval_args=split))
    assert "was trained on other interactions than this run's" in caplog.text


def test_damaged_and_foreign_exports(build, tmp_path, write_dataset):
    folder = tmp_path / "export"
    own = from_export(folder)
    with pytest.raises(ConfigError, match=f"^pretrained_e4srec: {folder} has no training.safetensors; give a folder"):
        build(**own)
    model = build().model
    export_model(model, folder)
    with pytest.raises(ConfigError, match=f"^export: {folder} is not empty"):
        export_model(model, folder)
    with pytest.raises(ConfigError, match="^item_embed_dim: pretrained_e4srec has rows of 8 numbers; set"):
        build(**own, item_embed_dim=4)
    with pytest.raises(ConfigError, match=f"^pretrained_e4srec: {folder} is of other items than this data set"):
        build(**own, item_inter_num_interval="[9,inf)")
    file = folder / "training.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ModelError, match=f"^pretrained_e4srec: {file} is damaged"):
        build(**own)


def test_an_export_and_what_it_brings(build, tmp_path, pretrained):
    export_model(build().model, tmp_path / "export")
    own = from_export(tmp_path / "export")
    with pytest.raises(ConfigError, match="^item_table: pretrained_e4srec brings its own; leave one of them empty"):
        build(**{**own, "item_table": "somewhere"})
    with pytest.raises(ConfigError, match="^instruction: pretrained_e4srec brings its own; leave it empty"):
        build(**own, instruction="w1 {items}")
    with pytest.raises(ConfigError, match="^user_llm_config: pretrained_e4srec brings its own language model"):
        build(**{**own, "user_llm_config": {"hidden_size": 8}})
    words = build(instruction=INSTRUCTION, training_rows="user", **pretrained).model
    export_model(words, tmp_path / "words")
    with pytest.raises(ConfigError, match="^training_rows: positions trains on every item"):
        build(**from_export(tmp_path / "words"))
