"""PromptLLM and PromptLLMTuned: vectors of prompts one by one, next tokens by a literal loop, and what is refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from architectures import CAUSAL, sampled
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

import recbole_hllm  # noqa: F401

# isort: split
from recbole.data.interaction import Interaction
from recbole.utils import init_seed

from recbole_hllm.config.config import Config
from recbole_hllm.data.loader import data_preparation
from recbole_hllm.data.rows.dataset import create_dataset
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.runs.plan import plan
from recbole_hllm.runs.run import load_run, run

# of the data set in conftest.py
N_ITEMS = 12
ROWS = [[3, 5, 3, 9], [2], [7, 4, 6], [12, 1, 1], []]
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
SCRATCH = {"model_type": "llama", **SIZES, "initializer_range": 0.3, "tie_word_embeddings": True}


def histories(rows, items=None, width=4):
    padded = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    rows = {"item_id_list": padded, "item_length": torch.tensor([len(row) for row in rows])}
    return Interaction(rows if items is None else {**rows, "item_id": torch.tensor(items)})


@pytest.fixture
def keys_of(toy, tiny_llm, tmp_path):
    """(model name, **keys) -> its keys on the toy of conftest.py; texts of at most 8 words, prompts of at most 40."""
    shared = toy()[0]
    names = ("MAX_ITEM_LIST_LENGTH", "train_batch_size", "eval_batch_size", "precision", "use_gpu", "show_progress")

    def keys(name, **keys):
        scratch = {"item_llm_config": SCRATCH, "tokenizer_dir": tiny_llm("bert")}
        own = {
            "PromptLLM": {"item_pretrain_dir": tiny_llm("bert")},
            "PromptLLMTuned": {"epochs": 1, **({} if keys.get("item_pretrain_dir") else scratch)},
        }
        return {
            "data_path": str(tmp_path), "dataset": "toy", "text_keys": ["title", "brand"], "text_field": "{value}",
            "text_separator": " ", "prompt_separator": " w39 ", "MAX_TEXT_LENGTH": 8, "MAX_PROMPT_LENGTH": 40,
            "item_chunk_tokens": 60, **own[name], **{key: shared[key] for key in names}, **keys,
        }  # fmt: skip

    return keys


@pytest.fixture
def build(keys_of):
    """(model name, **keys) -> a model in evaluation mode, and its first training rows."""

    def make(name, **keys):
        config = Config(name, config_dict=keys_of(name, **keys))
        init_seed(config["seed"], True)
        train = data_preparation(config, create_dataset(config))[0]
        init_seed(config["seed"], True)
        return config.spec.model(config, train._dataset).eval(), train._dataset[torch.arange(4)]

    return make


def words_of(model, item):
    """The text that conftest.py gives an item, cut by the limit of 8 tokens, [CLS] and [SEP] (or <s>) among them."""
    return model.prompts.catalogue.texts[item].split()


@torch.no_grad()
def plain_vector(folder, text, layers=None):
    """Mean of the last hidden states of one text, by transformers alone."""
    llm, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    hidden = llm(input_ids=tokenizer(text, return_tensors="pt").input_ids).last_hidden_state[0]
    return F.normalize(hidden.mean(0), dim=0)


# ---- prompts ----


@pytest.mark.parametrize(("kind", "around"), [("bert", 2), ("llama", 1)])
@pytest.mark.parametrize("before", ["", "w30 w31 "])
def test_users_are_the_means_of_their_prompts(build, tiny_llm, kind, around, before):
    """Words of all items with separators between, special tokens of the tokenizer once, one prompt at a time."""
    folder = tiny_llm(kind)
    model, _ = build("PromptLLM", item_pretrain_dir=folder, history_prompt=before)
    users = model.user_vectors(histories(ROWS))
    for row, user in zip(ROWS, users, strict=True):
        texts = [" ".join(words_of(model, item)[: 8 - around]) for item in row]
        torch.testing.assert_close(user, plain_vector(folder, before + " w39 ".join(texts)), rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_items_are_the_means_of_their_texts_and_scores_cosines(build, tiny_llm, kind):
    folder = tiny_llm(kind)
    model, _ = build("PromptLLM", item_pretrain_dir=folder)
    items = model.item_vectors()
    assert items.shape == (N_ITEMS + 1, 16) and items[0].tolist() == [0.0] * 16
    around = len(AutoTokenizer.from_pretrained(folder)("").input_ids)
    for item in range(1, N_ITEMS + 1):
        text = " ".join(words_of(model, item)[: 8 - around])
        torch.testing.assert_close(items[item], plain_vector(folder, text), rtol=0, atol=2e-6)
    rows = histories(ROWS, [1, 2, 3, 4, 5])
    table, users = model.full_sort_predict(rows), model.user_vectors(rows)
    expected = F.cosine_similarity(users[:, None], items[None, 1:], dim=-1)
    torch.testing.assert_close(table[:, 1:], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(model.predict(rows), expected.diagonal(), rtol=0, atol=1e-6)


def test_no_history_and_nothing_before_is_no_direction(build, tiny_llm, tmp_path):
    """A tokenizer without special tokens leaves nothing to read."""
    folder = tiny_llm("llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = None
    tokenizer.save_pretrained(folder)
    model, _ = build("PromptLLM", item_pretrain_dir=folder)
    users = model.user_vectors(histories(ROWS))
    assert users[-1].tolist() == [0.0] * 16
    torch.testing.assert_close(users[:-1].norm(dim=-1), torch.ones(len(ROWS) - 1))


@pytest.mark.parametrize("length", [16, 17, 18, 22, 28, 40])
def test_the_oldest_items_that_do_not_fit_are_left_out_whole(build, length):
    model, _ = build("PromptLLM", MAX_PROMPT_LENGTH=length, history_prompt="w30")
    history = [6, 9, 12, 3, 7, 4]
    tokens, lengths = model.prompts.of_histories(torch.tensor([history]), torch.tensor([6]))
    kept = []
    for item in reversed(history):  # the plain rule: one item more, as long as the whole prompt fits
        longer = [item, *kept]
        sizes = [min(len(words_of(model, one)), 6) for one in longer]
        if 3 + sum(sizes) + len(sizes) - 1 > length:
            break
        kept = longer
    assert 1 <= len(kept) and (len(kept) < 6 or length == 40)
    assert lengths.tolist() == [len(tokens)] and len(tokens) <= length
    assert tokens.tolist() == model.prompts.write(np.array(kept)).tolist()


def test_long_windows_are_cut_into_prompts_that_overlap_by_an_item(build):
    model, _ = build("PromptLLM", MAX_PROMPT_LENGTH=22)
    windows = torch.tensor([[6, 9, 12, 3, 7, 4, 8], [1, 2, 0, 0, 0, 0, 0]])
    tokens, lengths, given = model.prompts.of_windows(windows)
    pieces = [piece.tolist() for row in windows.numpy() for piece in model.prompts._pieces(row[row != 0])]
    assert len(pieces) > 2 and pieces[-1] == [1, 2] and all(len(piece) > 1 for piece in pieces)
    assert [items[0] for items in pieces[1:-1]] == [items[-1] for items in pieces[:-2]]
    predicted = [item for piece in pieces[:-1] for item in piece[1:]]
    assert predicted == [9, 12, 3, 7, 4, 8], "each but the first once"
    written = [model.prompts.write(np.array(piece)).tolist() for piece in pieces]
    assert lengths.tolist() == list(map(len, written)) and max(map(len, written)) <= 22
    assert tokens.tolist() == sum(written, [])
    first = [min(len(words_of(model, piece[0])), 6) for piece in pieces]
    assert given.tolist() == [1 + count for count in first]


def test_a_prompt_for_less_than_two_items_is_refused(build):
    with pytest.raises(ConfigError, match="MAX_PROMPT_LENGTH: of 14 tokens 12 are left for items, and two .* take 13"):
        build("PromptLLM", MAX_PROMPT_LENGTH=14)


@pytest.mark.parametrize("value", [0, 1.5, "all", None])
def test_prompts_of_no_length_are_refused(keys_of, value):
    with pytest.raises(ConfigError, match="MAX_PROMPT_LENGTH"):
        Config("PromptLLM", config_dict=keys_of("PromptLLM", MAX_PROMPT_LENGTH=value))


def test_positions_of_the_language_model_bound_prompts(build, tiny_llm):
    folder = tiny_llm("bert", max_position_embeddings=39)
    with pytest.raises(ModelError, match=r"texts of 40 tokens do .* 39 positions .*\(MAX_PROMPT_LENGTH\)"):
        build("PromptLLM", item_pretrain_dir=folder)
    build("PromptLLM", item_pretrain_dir=folder, MAX_PROMPT_LENGTH=39)


def test_a_prompt_llm_needs_a_language_model(build):
    with pytest.raises(ConfigError, match="item_pretrain_dir: name the language model"):
        build("PromptLLM", item_pretrain_dir=None)


def test_chunks_change_nothing(build):
    one, many = (build("PromptLLM", item_chunk_tokens=tokens)[0] for tokens in (1000, 1))
    rows = histories(ROWS)
    torch.testing.assert_close(one.full_sort_predict(rows), many.full_sort_predict(rows), rtol=0, atol=2e-6)


def test_the_language_model_stays_as_it_is(keys_of, tmp_path, tiny_llm):
    run("PromptLLM", config_dict=keys_of("PromptLLM"), run_dir=tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    weights = AutoModel.from_pretrained(tiny_llm("bert")).state_dict()
    for name, weight in loaded.model.reader.backbone.state_dict().items():
        assert torch.equal(weight, weights[name])
    assert not any(weight.requires_grad for weight in loaded.model.reader.parameters())


# ---- tuned by next-token prediction ----


@torch.no_grad()
def plain_loss(llm, model, windows):
    """Each prompt alone, each token from all before it, one at a time."""
    losses = []
    for row in windows.numpy():
        for piece in model.prompts._pieces(row[row != 0]):
            prompt = model.prompts.write(piece).tolist()
            first = len(model.prompts.head) + int(np.diff(model.prompts.bounds[piece[0]])[0])
            for place in range(max(first, 1), len(prompt)):
                logits = llm(torch.tensor([prompt[:place]]))
                losses.append(-logits.log_softmax(-1)[prompt[place]])
    return torch.stack(losses)


@pytest.mark.parametrize("tied", [True, False])
def test_loss_of_a_pretrained_model_is_the_plain_formula(build, tiny_llm, tied):
    """By transformers' own head, which load_backbone leaves out."""
    folder = tiny_llm("llama", tie_word_embeddings=tied)
    model, rows = build("PromptLLMTuned", item_pretrain_dir=folder, item_llm_tuning="full", MAX_PROMPT_LENGTH=22)
    rows_of_own = [len(weight) for weight in model.lm_head.state_dict().values()]
    assert rows_of_own == ([] if tied else [AutoConfig.from_pretrained(folder).vocab_size])
    whole = AutoModelForCausalLM.from_pretrained(folder).eval()
    expected = plain_loss(lambda ids: whole(ids).logits[0, -1], model, rows["item_id_list"])
    torch.testing.assert_close(model.calculate_loss(rows), expected.mean(), rtol=1e-5, atol=1e-5)
    assert model.loss_terms == {"next_token": pytest.approx(expected.mean().item(), rel=1e-5), "tokens": len(expected)}


# transformers reads no other tokenizer than its own for qwen2, and XLM is called an encoder whatever it is.
HEADS = [kind for kind in CAUSAL if kind not in ("qwen2",)]


@pytest.mark.parametrize("kind", sampled(HEADS))
def test_loss_is_the_language_models_own(build, tiny_llm, kind):
    """With its scales, caps, biases and layers between the last hidden states and the logits."""
    folder = tiny_llm(kind)
    keys = {"item_pretrain_dir": folder, "item_llm_tuning": "full", "MAX_PROMPT_LENGTH": 22}
    model, rows = build("PromptLLMTuned", **keys)
    whole = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    tokens, lengths, given = model.prompts.of_windows(rows["item_id_list"])
    losses = []
    for prompt, first in zip(tokens.split(lengths.tolist()), given.tolist(), strict=True):
        logits = whole(prompt[None]).logits[0, first - 1 : -1]
        losses.append(F.cross_entropy(logits, prompt[first:], reduction="none"))
    expected = torch.cat(losses).mean()
    assert expected.item() > 1
    torch.testing.assert_close(model.calculate_loss(rows), expected, rtol=2e-5, atol=1e-5)


def test_gradients_are_those_of_the_plain_formula(build):
    model, rows = build("PromptLLMTuned", MAX_PROMPT_LENGTH=22)
    model.calculate_loss(rows).backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    llm = model.reader.backbone
    tokens, lengths, given = model.prompts.of_windows(rows["item_id_list"])
    losses = []
    for prompt, first in zip(tokens.split(lengths.tolist()), given.tolist(), strict=True):
        logits = llm(prompt[None]).last_hidden_state[0] @ llm.get_input_embeddings().weight.T
        losses.append(F.cross_entropy(logits[first - 1 : -1], prompt[first:], reduction="none"))
    torch.cat(losses).mean().backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(gradients[name], weight.grad, rtol=1e-4, atol=1e-6)


def test_a_later_item_never_moves_an_earlier_tokens_loss(build):
    from recbole_hllm.nn.next_token import next_token_losses

    model, _ = build("PromptLLMTuned")
    both = []
    for last in (7, 4):
        tokens, lengths, given = model.prompts.of_windows(torch.tensor([[3, 5, 11, last]]))
        both.append(next_token_losses(model.reader.backbone, tokens, lengths, given, model.lm_head))
    common = len(model.prompts.write(np.array([3, 5, 11]))) - len(model.prompts.tail) - int(given)
    assert torch.allclose(both[0][:common], both[1][:common], atol=1e-6) and common > 5
    assert (both[0][common + 1] - both[1][common + 1]).abs() > 1e-3


def test_words_of_a_model_from_scratch_are_those_of_the_data(build, tiny_llm):
    model, _ = build("PromptLLMTuned", history_prompt="w38")
    tokenizer = AutoTokenizer.from_pretrained(tiny_llm("bert"))
    texts = [" ".join(words_of(model, item)[:6]) for item in range(N_ITEMS + 1)]
    used = sorted({token for text in (*texts, "w38 w39") for token in tokenizer(text).input_ids})
    assert model.reader.backbone.config.vocab_size == len(used) < len(tokenizer)
    prompt = f"w38 {texts[5]} w39 {texts[2]}"
    written = model.prompts.write(np.array([5, 2]))
    assert [used[token] for token in written] == tokenizer(prompt).input_ids


def test_parts_of_a_batch_weigh_by_their_tokens(build):
    """As processes that share it weigh them."""
    model, rows = build("PromptLLMTuned", MAX_PROMPT_LENGTH=22)
    total, tokens = 0.0, []
    for part in (slice(0, 1), slice(1, None)):
        total += model.calculate_loss(rows[part]) * model.loss_parts
        tokens.append(model.loss_parts)
    torch.testing.assert_close(total / sum(tokens), model.calculate_loss(rows))
    assert model.loss_parts == sum(tokens) and tokens[0] * len(rows) != sum(tokens)


def test_windows_have_every_training_item_once(build, keys_of):
    config = Config("PromptLLMTuned", config_dict=keys_of("PromptLLMTuned"))
    train = data_preparation(config, create_dataset(config))[0]._dataset
    windows = train[torch.arange(len(train))]["item_id_list"]
    predicted = windows[:, 1:][windows[:, 1:] != 0]
    firsts = sum(length > 1 for length in train.train_lengths)
    assert len(predicted) == len(train.training_positions) - firsts


def test_lora_trains_its_additions_only(build, tiny_llm):
    pytest.importorskip("peft")
    model, rows = build("PromptLLMTuned", item_pretrain_dir=tiny_llm("llama"))
    model.train().calculate_loss(rows).backward()
    trained = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert trained and all(".lora_" in name for name in trained)
    whole = sum(weight.numel() for weight in AutoModel.from_pretrained(tiny_llm("llama")).parameters())
    assert model.inference_parameters() == whole


@pytest.mark.parametrize("pretrained", [False, True])
def test_a_tuned_run_is_read_back(keys_of, tmp_path, tiny_llm, pretrained):
    keys = {"item_pretrain_dir": tiny_llm("llama"), "item_llm_tuning": "full"} if pretrained else {}
    run("PromptLLMTuned", config_dict=keys_of("PromptLLMTuned", **keys), run_dir=tmp_path / "run")
    first, second = (load_run(tmp_path / "run") for _ in range(2))
    if not pretrained:  # tied: the head reads the words that were loaded
        hidden, words = torch.randn(3, 16), first.model.reader.backbone.get_input_embeddings().weight
        torch.testing.assert_close(first.model.lm_head(hidden), hidden @ words.T)
    rows = next(iter(first.test_data))[0]
    table = first.model.full_sort_predict(rows)
    assert torch.equal(table, second.model.full_sort_predict(rows)) and table.std() > 0
    assert first.model.vectors_kept()
    before = first.model.item_vectors()
    first.model.train()
    assert not first.model.vectors_kept()
    with torch.no_grad():
        next(first.model.reader.parameters()).add_(1)
    first.model.eval()
    assert not torch.allclose(first.model.item_vectors(), before, atol=1e-3)


def test_a_plan_counts_tokens(keys_of):
    keys = keys_of("PromptLLMTuned")
    config = Config("PromptLLMTuned", config_dict=keys)
    train = data_preparation(config, create_dataset(config))[0]
    model = config.spec.model(config, train._dataset)
    tokens = sum(len(model.prompts.of_windows(rows["item_id_list"])[0]) for rows in train)
    assert plan("PromptLLMTuned", config_dict=keys)["positions"] == tokens


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"item_llm_tuning": "frozen"}, "item_llm_tuning: 'frozen' is not one of full, lora"),
        ({"item_llm_tuning": "lora"}, "lora keeps the weights there are, and without item_pretrain_dir they are"),
        ({"tokenizer_dir": None}, "tokenizer_dir: name it, or a pretrained language model, item_pretrain_dir"),
        ({"item_llm_config": None}, "item_llm_config: name it"),
        ({"item_llm_config": "llama"}, "item_llm_config: 'llama' is not a dict"),
        ({"item_llm_config": {**SCRATCH, "vocab_size": 9}}, "vocab_size is the number of different tokens"),
        ({"item_llm_layers": 1}, "item_llm_layers: is of item_pretrain_dir"),
        ({"item_pretrain_dir": "x", "item_llm_config": SCRATCH}, "item_llm_config: is of a language model from scr"),
        ({"item_pretrain_dir": "x", "tokenizer_dir": "y"}, "tokenizer_dir: is of a language model from scratch"),
        ({"lora_target_modules": 3}, "lora_target_modules"),
        ({"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}, "compares with no drawn neg"),
    ],
)
def test_values_that_are_refused(build, keys, message):
    with pytest.raises(ConfigError, match=message):
        build("PromptLLMTuned", **keys)


def test_a_language_model_that_looks_ahead_cannot_predict(build, tiny_llm):
    said = "a bert model cannot predict the tokens of prompts .PromptLLM reads with it as it is.: it is bidirectional"
    with pytest.raises(ModelError, match=f"^item_pretrain_dir: {said}"):
        build("PromptLLMTuned", item_pretrain_dir=tiny_llm("bert"))
    with pytest.raises(ModelError, match=f"^item_llm_config: {said}"):
        build("PromptLLMTuned", item_llm_config={"model_type": "bert", **SIZES})


def test_weights_without_a_head_cannot_predict(build, tiny_llm):
    folder = tiny_llm("llama")
    AutoModel.from_pretrained(folder).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"1 are missing \(lm_head.weight\)"):
        build("PromptLLMTuned", item_pretrain_dir=folder)
