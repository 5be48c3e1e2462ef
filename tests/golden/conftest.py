"""Numbers of the official HLLM code on tiny invented data; HLLM_GOLDENS names another such folder.

`goldens` are the files, `kind` the item language model, `pipeline` a whole run of ours on their data.
"""

import csv
import json
import os
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_hllm.config.config import Config
from recbole_hllm.data.loader import data_preparation
from recbole_hllm.data.rows.dataset import create_dataset
from recbole_hllm.data.texts.item_texts import ItemTexts
from recbole_hllm.model.hllm.hllm import HLLM
from recbole_hllm.training.trainer import Trainer

DEFAULT_ROOT = Path(__file__).parent / "data" / "hllm"
DEFAULTS = {  # of the reference, where its settings are null
    "item_prompt": "Compress the following sentence into embedding: ",
    "text_keys": ["title", "tag", "description"],
    "MAX_TEXT_LENGTH": 256,
    "MAX_ITEM_LIST_LENGTH": 10,
    "item_emb_token_n": 1,
    "nce_thres": 0.99,
    "data_split": None,
    "num_negatives": None,
    "MAX_ITEM_LIST_LENGTH_TEST": None,
}


SCHEDULE = {"type": "cosine", "warmup_steps": 3, "total_steps": 30}
WEIGHT_DECAY = 0.01
ROWS = ("pos_item_ids", "neg_item_ids", "attention_mask")


class Goldens:
    """The reference's files; what is null in them counts as absent.

    `kinds`: the item language models they were made with (llama, bert).

    Raises:
        FileNotFoundError: there are numbers of none.
    """

    def __init__(self, root: Path):
        self.root, self.read = root, cache(self._read)
        self.settings, self.splits = self.read("settings.json"), self.read("splits.json")
        self.kinds = [kind for kind in ("llama", "bert") if any((root / kind).glob("*"))]
        if not self.settings or not self.kinds:
            raise FileNotFoundError(f"{root} holds no goldens: settings.json and llama/ or bert/ are needed")
        self.schedule = {**SCHEDULE, **self.setting("scheduler", {})}

    def setting(self, name, default):
        """A setting, or the default where the files leave it null or out."""
        return self.settings.get(name, default)

    def _read(self, name: str):
        """The content of a JSON or npz file; empty where there is no such file."""
        path = self.root / name
        if not path.is_file():
            return {}
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=without_nulls) or {}

    def given(self, name: str, *keys):
        """What stands under the keys in a file; the test is skipped where it is null or absent."""
        found = self.read(name)
        for key in keys:
            within = key < len(found) if isinstance(found, list) else key in found
            found = found[key] if within else None
            if found is None:
                break
        if found is None or (isinstance(found, (dict, list)) and not found):
            pytest.skip(f"these goldens have no {' '.join(map(str, keys))} in {name}")
        return found

    def holding(self, results, *keys):
        """Those of the results that have all the keys; the test is skipped where none has."""
        found = [result for result in results if result and all(key in result for key in keys)]
        if not found:
            pytest.skip(f"these goldens have no {' and '.join(keys)}")
        return found

    def rows_of(self, kind, result):
        """(rows, negatives, mask) a result was computed from: its own, or those of one of the fixed batches."""
        if all(name in result for name in ROWS):
            return tuple(np.asarray(result[name]) for name in ROWS)
        if "batch" not in result:
            pytest.skip("these goldens do not say which rows a result belongs to")
        return tuple(self.given(f"{kind}/train_batches.npz", f"{name}_{result['batch']}") for name in ROWS)


def without_nulls(pairs):
    return {key: value for key, value in pairs if value is not None}


@cache
def load_goldens() -> Goldens:
    root = Path(os.environ.get("HLLM_GOLDENS") or DEFAULT_ROOT)
    return Goldens(root if (root / "settings.json").is_file() else root / "hllm")


@pytest.fixture(scope="session")
def goldens() -> Goldens:
    return load_goldens()


@pytest.fixture(scope="session", params=load_goldens().kinds)
def kind(request) -> str:
    """A test with an argument `kind` runs once for every item language model there are numbers of."""
    return request.param


LISTS = {  # argument of a test -> the list it runs through, by place, or dict, by key
    "batch": ("batch_results", "batches"),
    "mean_pool": ("batch_results", "mean_pool"),
    "clamp": ("batch_results", "logit_scale_clamp"),
    "rate": ("train30",),
}


def pytest_generate_tests(metafunc):
    """A test with one of these arguments runs once for every place of the list that any of the kinds has."""
    for argument, (name, *keys) in LISTS.items():
        if argument in metafunc.fixturenames:
            places = {}
            for kind in load_goldens().kinds:
                content = load_goldens().read(f"{kind}/{name}.json")
                for key in keys:
                    content = content.get(key, [])
                places |= dict.fromkeys(content if isinstance(content, dict) else range(len(content)))
            metafunc.parametrize(argument, list(places))


# ---- golden files as a run of ours ----


class Pipeline:
    """Data set, loaders, model and trainer as `run` makes them; ids of the golden files are translated by token."""

    def __init__(self, goldens, kind, folder, **changes):
        self.goldens, self.kind, self.folder = goldens, kind, folder
        name, self.texts = write_dataset(goldens, folder)
        settings = {**settings_of(goldens, kind), "data_path": str(folder), "cache_dir": str(folder / "cache")}
        self.config = Config("HLLM", name, config_dict={**settings, **changes})
        self.dataset = create_dataset(self.config)
        self.loaders = dict(zip(("train", "valid", "test"), data_preparation(self.config, self.dataset), strict=True))
        self.items = self._ids(self.dataset.iid_field, "item_tokens")
        self.users = self._ids(self.dataset.uid_field, "user_tokens")

    def _ids(self, field, tokens):
        """Golden id -> id here."""
        id_of = self.dataset.field2token_id[field]
        golden = self.goldens.given("splits.json", tokens)
        assert len(id_of) == len(golden)
        return np.array([id_of[token] for token in golden])

    def read(self, name):
        return self.goldens.read(f"{self.kind}/{name}")

    def given(self, name, *keys):
        return self.goldens.given(f"{self.kind}/{name}", *keys)

    # -- ours --

    @cached_property
    def item_texts(self):
        """The fields as they stand in the CSV file, line breaks and tabs included."""
        keys = self.config["text_keys"]
        tokens = self.dataset.field2id_token[self.dataset.iid_field]
        rows = [self.texts.get(token, {}) for token in tokens]
        fields = [tuple(row.get(key) or "" for key in keys) for row in rows]
        return ItemTexts(tuple(keys), fields, np.array([bool(row) for row in rows]))

    @cached_property
    def model(self):
        model = HLLM(self.config, self.loaders["train"]._dataset, self.item_texts)
        if self.config["pretrained_hllm"] is None:
            if "logit_scale" in self.read("init.npz"):
                model.logit_scale.data.copy_(torch.from_numpy(self.read("init.npz")["logit_scale"]))
            if model.item_encoder.item_emb_tokens is not None:
                tokens = self.given("init.npz", "item_emb_tokens")
                model.item_encoder.item_emb_tokens.data.copy_(torch.from_numpy(tokens))
        return model

    @cached_property
    def trainer(self):
        return Trainer(self.config, self.model, self.folder / "run")

    def official_names(self):
        """Name in the official code -> parameter of ours."""
        names = {}
        for name, parameter in self.model.named_parameters():
            part, _, rest = name.partition(".backbone.")
            if rest:
                official = {"item_encoder": "item_llm", "user_encoder": "user_llm"}[part]
                inner = "" if part == "item_encoder" and self.model.item_encoder.bidirectional else "model."
                name = f"{official}.{inner}{rest}"
            names[name.removeprefix("item_encoder.")] = parameter
        return names

    def undefined(self) -> bool:
        """Whether the reference's numbers may be none: its mean over the tokens of a text that has not any."""
        if self.model.item_encoder.item_emb_tokens is not None:
            return False
        _, lengths = self.model.catalogue.lookup(self.items[1:])
        return bool((lengths == 0).any())

    # -- batches --

    def batch(self, rows, negatives, mask):
        """A training batch of ours from one of the reference, whose rows are padded on the left with random items."""
        assert (np.diff(mask, axis=1) >= 0).all()
        windows = np.zeros_like(rows)
        for window, row, inputs in zip(windows, rows, mask.sum(1), strict=True):
            if inputs:  # the target of the last input is real too
                window[: inputs + 1] = self.items[row[-(inputs + 1) :]]
        negatives = torch.from_numpy(self.items[negatives].reshape(1, -1))
        return Interaction({self.model.ITEM_SEQ: torch.from_numpy(windows), self.model.NEG_ITEM_ID: negatives})

    def batch_of(self, result):
        return self.batch(*self.goldens.rows_of(self.kind, result))

    def histories(self, item_seq):
        """Evaluation rows of ours from (B, S) golden ids, padded on the left with 0."""
        lengths = (item_seq > 0).sum(1)
        padded = np.zeros_like(item_seq)
        for row, golden, length in zip(padded, item_seq, lengths, strict=True):
            row[:length] = self.items[golden[len(golden) - length :]]
        lengths = torch.from_numpy(lengths)
        return Interaction({self.model.ITEM_SEQ: torch.from_numpy(padded), self.model.ITEM_SEQ_LEN: lengths})

    def eval_batches(self, phase):
        """(golden row numbers, batch) of every batch of the evaluation loader; the golden rows are users."""
        row_of = {self.users[user]: row for row, (user, _) in enumerate(self.goldens.given("splits.json", "user_seq"))}
        for batch in self.loaders[phase]:
            yield np.array([row_of[user.item()] for user in batch[0][self.model.USER_ID]]), batch


def write_dataset(goldens, folder):
    """Writes the atomic files, texts with single spaces; returns the data set's name and every item's CSV row."""
    (interactions,), (information,) = (list((goldens.root / part).glob("*.csv")) for part in ("dataset", "information"))
    rows, texts = read_csv(interactions), read_csv(information)
    path = folder / interactions.stem / interactions.stem
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ["user_id", "item_id", "timestamp"]
    cells = [[row[column] for column in columns] for row in rows]
    write_atomic(path.with_suffix(".inter"), ["user_id:token", "item_id:token", "timestamp:float"], cells)
    columns = dict.fromkeys([*texts[0], *goldens.setting("text_keys", DEFAULTS["text_keys"])])
    keys = [key for key in columns if key != "item_id"]
    cells = [[row["item_id"], *(" ".join((row.get(key) or "").split()) for key in keys)] for row in texts]
    write_atomic(path.with_suffix(".item"), ["item_id:token", *(f"{key}:token_seq" for key in keys)], cells)
    return path.name, {row["item_id"]: row for row in texts}


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_atomic(path, header, rows):
    path.write_bytes("".join("\t".join(cells) + "\n" for cells in [header, *rows]).encode())


def settings_of(goldens, kind):
    """Our config for the reference's settings."""
    settings = {key: goldens.setting(key, default) for key, default in DEFAULTS.items()}
    masks = goldens.read(f"{kind}/train_batches.npz")
    if "MAX_ITEM_LIST_LENGTH" not in goldens.settings and "attention_mask_0" in masks:
        settings["MAX_ITEM_LIST_LENGTH"] = masks["attention_mask_0"].shape[1]
    metrics = metrics_of(goldens, kind)
    topk = sorted({int(k) for _, k in metrics})
    names = sorted({{"ndcg": "NDCG", "mrr": "MRR"}.get(name, name.capitalize()) for name, _ in metrics})
    return {
        **settings,
        "reference": True,
        "text_separator": "",
        "mask_history": True,
        "precision": "fp32",
        "item_pretrain_dir": str(goldens.root / "models" / f"{kind}_item"),
        "user_pretrain_dir": str(goldens.root / "models" / "llama_user"),
        "user_llm_init": True,
        "topk": topk,
        "metrics": names,
        "valid_metric": f"{names[0]}@{topk[0]}",
        "metric_decimal_place": 9,
        "train_batch_size": goldens.setting("train_batch_size", 6),
        "eval_batch_size": goldens.setting("eval_batch_size", 16),
        "learner": "adamw",
        "item_learning_rate": None,
        "weight_decay": goldens.setting("optim_args", {}).get("weight_decay", WEIGHT_DECAY),
        "scheduler": goldens.schedule["type"],
        "warmup_ratio": goldens.schedule["warmup_steps"] / goldens.schedule["total_steps"],
        "epochs": 1,
        "use_gpu": False,
        "show_progress": False,
    }


def metrics_of(goldens, kind):
    """(name, k) of every metric in the tables."""
    tables = [*goldens.read(f"{kind}/eval.json").values()]
    tables += goldens.read(f"{kind}/checkpoint.json").get("metrics", {}).values()
    found = [name.split("@") for table in tables if isinstance(table, dict) for name in table]
    return found or [("recall", 10)]


@pytest.fixture
def new_pipeline(goldens, kind, tmp_path):
    """(**changes of the config) -> a Pipeline with the start weights, for a test that changes them."""
    return lambda **changes: Pipeline(goldens, kind, tmp_path, **changes)


@pytest.fixture(scope="session")
def pipeline_of(goldens):
    """(kind, folder, **changes of the config) -> a Pipeline with the start weights."""
    return lambda kind, folder, **changes: Pipeline(goldens, kind, folder, **changes)


@pytest.fixture(scope="module")
def pipeline(goldens, kind, tmp_path_factory):
    """The start weights, which no test changes."""
    return Pipeline(goldens, kind, tmp_path_factory.mktemp(kind))


@pytest.fixture(scope="module")
def mean_pooling(goldens, kind, tmp_path_factory):
    """The same with the mean over the text as item vector."""
    return Pipeline(goldens, kind, tmp_path_factory.mktemp(f"{kind}-mean"), item_emb_token_n=0)


@pytest.fixture(scope="module")
def checkpoint(goldens, kind, tmp_path_factory):
    """The trained weights, loaded from the reference's own file."""
    path = goldens.root / kind / "pytorch_model.bin"
    if not path.is_file():
        pytest.skip("no checkpoint in these goldens")
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if not all(weights.isfinite().all() for weights in saved.values()):
        pytest.skip("the reference trained on NaN: its checkpoint holds no numbers")
    return Pipeline(goldens, kind, tmp_path_factory.mktemp(f"{kind}-trained"), pretrained_hllm=str(path))
