"""What tests of several folders need: small data sets in RecBole's format, and configs that read them."""

import os
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before torch is imported, and for the programs that tests start: more threads make tiny tensors no faster, and wait
# for each other on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
# Of a launcher that the tests were started under: each test is one process, or starts several.
os.environ.pop("WORLD_SIZE", None)
# Before a test imports RecBole's models itself, which would leave torch's anomaly detection on: all backward passes are
# slower with it.
import_module("recbole_hllm.registry")

# The same examples in every run, however long each takes: a failure can be repeated, and a green run stays green.
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """A worker for every core that this process may use, but not so many that their memory becomes the limit."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, 8)


INTER = "user_id:token\titem_id:token\ttimestamp:float"


def _lines(header, rows):
    return "\n".join([header, *("\t".join(map(str, row)) for row in rows)]) + "\n"


def _write_dataset(folder, name, rows, items=None, users=None, header=INTER, suffix="inter"):
    """Writes ``folder/name/name.inter``, and ``.item`` and ``.user`` where given.

    Args:
        folder: becomes ``data_path``.
        rows: tuples of cells of the interaction file, in file order.
        items, users: a header and rows each: ``("item_id:token\\ttitle:token_seq", [("a", "Toy Story")])``.
        header: of the interaction file.
        suffix: of the interaction file, ``train.inter`` for a file of ``benchmark_filename``.

    Returns:
        The folder of the data set.
    """
    target = Path(folder) / name
    target.mkdir(parents=True, exist_ok=True)
    (target / f"{name}.{suffix}").write_text(_lines(header, rows), encoding="utf-8")
    for kind, table in (("item", items), ("user", users)):
        if table is not None:
            (target / f"{name}.{kind}").write_text(_lines(*table), encoding="utf-8")
    return target


@pytest.fixture(scope="session")
def write_dataset():
    """The function that writes a small data set."""
    return _write_dataset


# ---- a data set that is easy to learn, for tests of whole runs ----

TINY_LLAMA = {
    "model_type": "llama", "vocab_size": 8, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2,
}  # fmt: skip


@pytest.fixture(scope="session")
def toy_data(write_dataset, tmp_path_factory) -> str:
    """data_path of ``toy``: 14 users walk round 12 items, one step at a time, at distinct times; items have texts.

    And of ``labelled``: the same walks, all users at once; every third item is liked.
    """
    folder = tmp_path_factory.mktemp("data")
    colours = ("red", "blue", "green", "grey")
    rows = [
        (f"u{user}", f"i{(5 * user + step) % 12}", 1_000_000_000 + 7 * step + 1000 * user)
        for step in range(10)
        for user in range(14)
        if step < 6 + user % 4
    ]
    items = [(f"i{item}", f"{item} {colours[item % 4]}", colours[item % 3]) for item in range(12)]
    items = ("item_id:token\ttitle:token_seq\tclass:token_seq", items)
    write_dataset(folder, "toy", rows, items)
    labelled = [
        (user, item, int(item[1:]) % 3 // 2, time % 1000 // 7 * 100 + int(user[1:])) for user, item, time in rows
    ]
    header = "user_id:token\titem_id:token\tlabel:float\ttimestamp:float"
    write_dataset(folder, "labelled", labelled, items, header=header)
    return str(folder)


@pytest.fixture(scope="session")
def toy(toy_data) -> str:
    """The same, unless a folder has a toy of its own."""
    return toy_data


@pytest.fixture(scope="session")
def settings_of(toy_data):
    """model name -> keys of a run of a second on ``toy``."""
    shared = {
        "data_path": toy_data, "dataset": "toy", "epochs": 2, "MAX_ITEM_LIST_LENGTH": 5, "topk": [1, 3, 10],
        "metrics": ["Recall", "MRR", "NDCG"], "valid_metric": "MRR@10", "metric_decimal_place": 10,
        "show_progress": False, "train_batch_size": 16, "use_gpu": False, "state": "warning",
    }  # fmt: skip
    small = {"hidden_size": 8, "inner_size": 16, "n_layers": 1, "n_heads": 2, "embedding_size": 8}
    llm = str(Path(__file__).parent / "golden" / "data" / "hllm" / "models" / "llama_item")
    tied = {key: value for key, value in TINY_LLAMA.items() if key != "vocab_size"} | {"tie_word_embeddings": True}
    own = {
        "HLLM": {
            "item_pretrain_dir": llm, "item_llm_layers": 1, "user_llm_config": TINY_LLAMA, "text_keys": ["title"],
            "num_negatives": 8, "precision": "fp32", "MAX_TEXT_LENGTH": 24,
        },
        "TextKNN": {"item_pretrain_dir": llm, "item_llm_layers": 1, "text_keys": ["title"]},
        **dict.fromkeys(
            ("WhitenRec", "UniSRec"),
            {**small, "item_pretrain_dir": llm, "item_llm_layers": 1, "text_keys": ["title"], "MAX_TEXT_LENGTH": 24},
        ),
        "PromptLLM": {
            "item_pretrain_dir": llm, "item_llm_layers": 1, "text_keys": ["title"], "precision": "fp32",
            "MAX_TEXT_LENGTH": 24,
        },
        "PromptLLMTuned": {
            "item_llm_config": tied, "tokenizer_dir": llm,
            "text_keys": ["title"], "precision": "fp32", "MAX_TEXT_LENGTH": 24,
        },
        "LEARN": {**small, "output_size": 8, "target_length": 2, "precision": "fp32", "item_pretrain_dir": None},
        "LLMIDRec": {"user_llm_config": TINY_LLAMA, "item_embed_dim": 8},
    }  # fmt: skip
    own["E4SRec"] = {
        "item_embed_dim": 8, "user_llm_config": {**TINY_LLAMA, "num_hidden_layers": 4}, "precision": "fp32",
        "item_table_keys": {"n_layers": 1, "n_heads": 2, "inner_size": 16, "train_batch_size": 16},
    }  # fmt: skip
    own["SLMRec"] = {**own["E4SRec"], "user_llm_layers": 2, "blocks": 2, "teacher_keys": {"user_llm_layers": 4}}
    labelled = {"dataset": "labelled", "metrics": ["AUC", "LogLoss", "GAUC"], "valid_metric": "AUC"}
    by_id = {"content": "id", "content_dim": 8}
    own["LEARNScorer"] = {**own["LEARN"], **labelled, **by_id, "history_filter": "all"}
    learn = {**by_id, "target_length": 2, "output_size": 8, "precision": "fp32", **small}
    own["LEARNRanker"] = {**labelled, "history_filter": "all", "learn_keys": learn, "fusion_hidden": [8, 4]}
    own["HLLMRanker"] = {**own["HLLM"], **labelled, "head_hidden": [16], "item_llm_tuning": "full"}
    return lambda model: {**shared, **own.get(model, small)}


# ---- rows of tables ----


def _in_this_process(monkeypatch) -> list[str]:
    from recbole_hllm import cli

    started = []

    def here(command, env, **_):
        folder = next(word for word in command if word.startswith("--run_dir=")).removeprefix("--run_dir=")
        started.append("/".join(Path(folder).parts[-2:]))
        try:
            code = cli.main(command[command.index("recbole_hllm.cli") + 1 :])
        except Exception:  # a traceback, in a process
            code = 1
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", here)
    return started


@pytest.fixture(scope="session")
def in_this_process():
    """(monkeypatch) -> the run folders that a table or search starts from now on, in order, by their last two names.

    They run in this process: one of its own takes seconds to import what is imported here already.
    """
    return _in_this_process


@pytest.fixture
def started(monkeypatch):
    """The run folders that a table or search of this test starts, in this process."""
    return _in_this_process(monkeypatch)


# ---- tiny language models ----

_WORDS = 40
_SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def _write_words(folder, around) -> int:
    """Writes a tokenizer of <unk>, the tokens around every text and the words w0 ... w39.

    Args:
        around: BOS, or [CLS] and [SEP].

    Returns:
        The number of its tokens.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["<unk>", *around, *(f"w{word}" for word in range(_WORDS))]
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(vocabulary)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    template = " ".join([around[0], "$A", *around[1:]])
    words.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, vocabulary.index(token)) for token in around]
    )
    names = ["bos_token"] if len(around) == 1 else ["cls_token", "sep_token"]
    tokens = dict(zip(names, around, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", **tokens).save_pretrained(folder)
    return len(vocabulary)


def _write_tiny_llm(folder, kind, **sizes):
    """Writes a random language model, causal ones with their head, and a tokenizer, as a Hugging Face folder.

    Weights are large, and biases and norms random too, so that a wrong formula shows; the same arguments give the same
    weights.
    """
    import torch
    from architectures import CAUSAL, ENCODERS_ALONE, keys_of
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForTextEncoding,
    )

    vocab_size = _write_words(folder, ["<s>"] if kind in CAUSAL else ["[CLS]", "[SEP]"])
    changes = {"vocab_size": vocab_size, "initializer_range": 0.3, **sizes}
    plain = kind in ("llama", "bert")
    config = AutoConfig.for_model(**({"model_type": kind, **_SIZES, **changes} if plain else keys_of(kind, **changes)))
    model_class = AutoModelForCausalLM if kind in CAUSAL else AutoModel
    model_class = AutoModelForTextEncoding if kind in ENCODERS_ALONE else model_class
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = model_class.from_config(config)
        with torch.no_grad():
            for weight in () if plain else model.parameters():
                if weight.dim() == 1:
                    weight.add_(0.3 * torch.randn_like(weight))
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def tiny_llm(tmp_path):
    """(kind, **keys) -> folder of a tiny random language model with a tokenizer of the words w0 ... w39.

    The kind is ``llama``, ``bert`` or any of the list in support/architectures.py; the keys are of its configuration.
    """

    def make(kind="llama", **sizes):
        name = "-".join([kind.replace(":", "-"), *(f"{key}={value}" for key, value in sizes.items())])
        return _write_tiny_llm(tmp_path / "llms" / name, kind, **sizes)

    return make
