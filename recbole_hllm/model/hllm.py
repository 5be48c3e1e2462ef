"""HLLM, generative (arXiv 2409.12740): an Item LLM turns texts into item vectors, a User LLM predicts the next one."""

from pathlib import Path

import torch
from recbole.data.dataset.dataset import Dataset
from recbole.utils import FeatureType

from recbole_hllm.data.cache import cache_folder
from recbole_hllm.data.catalogue import ItemCatalogue
from recbole_hllm.data.protocol import referenced
from recbole_hllm.data.reader import read_header
from recbole_hllm.data.texts import ItemTexts, TextTemplate, read_item_texts
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.keys import AUTOCAST_DTYPES
from recbole_hllm.model.next_item import NextItemRecommender
from recbole_hllm.nn.backbone import BackboneSpec, is_bidirectional, load_backbone, load_tokenizer
from recbole_hllm.nn.chunked import encode_items
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.user_encoder import UserEncoder

class HLLM(NextItemRecommender):
    """Hierarchical LLM for sequential recommendation.

    Trains on windows of S + 1 items with K negatives shared by the batch; each distinct item of a batch is encoded
    once.

    Args:
        config: the run's Config; keys are explained in ``properties/model/HLLM.yaml``.
        dataset: the training part of a SequenceDataset.
        item_texts: the fields named in ``text_keys`` of every item, for texts that a tab-separated file cannot hold;
            read from ``<dataset>.item`` when not given.

    Raises:
        ConfigError, DataError, ModelError: texts, language models or their sizes do not fit together.
    """

    def __init__(self, config, dataset: Dataset, item_texts: ItemTexts | None = None):
        super().__init__(config, dataset)
        self.token_budget, self.recompute = config["item_chunk_tokens"], config["recompute_items"]
        self.autocast_dtype = AUTOCAST_DTYPES[config["precision"]]
        self.rates = {"item": config["item_learning_rate"], "weight_decay": config["weight_decay"]}
        self.decay_everything = "weight_decay" in referenced(config)

        item_spec, user_spec = _item_spec(config), _user_spec(config)
        self.catalogue = build_catalogue(config, item_texts or read_texts(config, dataset))
        user_llm, item_llm = load_backbone(user_spec), load_backbone(item_spec)
        _set_dropout(item_llm, config["item_llm_dropout"])
        pooled = config["item_emb_token_n"]
        self.user_encoder = UserEncoder(user_llm)
        self.item_encoder = ItemEncoder(
            item_llm,
            item_emb_token_n=int(not is_bidirectional(item_llm)) if pooled is None else pooled,
            out_features=self.user_encoder.hidden_size,
            max_text_length=config["MAX_TEXT_LENGTH"],
            right_aligned_positions="positions" in referenced(config),
        )
        if config["pretrained_hllm"] and not getattr(config, "weights_follow", False):
            load_pretrained_hllm(self, config["pretrained_hllm"])
        _log_set_up(self.logger, config, self)

    # ---- what the two language models compute ----

    def vectors_of(self, ids):
        """(N,) item ids -> (N, D) vectors; each distinct item is encoded once, the padding item's vector is 0."""
        distinct, places = torch.unique(ids, return_inverse=True)
        real = distinct[distinct != 0]
        tokens, lengths = self.catalogue.lookup(real)
        vectors = encode_items(
            self.item_encoder,
            tokens.to(ids.device),
            lengths.to(ids.device),
            token_budget=self.token_budget,
            recompute=self.recompute and self.training,
        )
        self.items_encoded = len(real)
        padding = vectors.new_zeros(len(distinct) - len(real), vectors.shape[1])
        return torch.cat([padding, vectors])[places]

    def read_history(self, vectors, history):
        """(B, S, D) item vectors -> (B, S, D) predictions by the User LLM."""
        return self.user_encoder(vectors)

    def catalogue_vectors(self):
        """(n_items, D) vectors of all items, in the precision of the training."""
        dtype = self.autocast_dtype
        with torch.autocast(self.logit_scale.device.type, dtype=dtype, enabled=dtype is not None):
            return super().catalogue_vectors()

    # ---- training ----

    def report(self, result):
        """Also how many items were encoded."""
        super().report(result)
        rate = self.loss_terms.pop("batches/s") * self.items_encoded
        self.loss_terms |= {"distinct_items": self.items_encoded, "items/s": rate}

    def parameter_groups(self):
        """Item LLM and the rest with their own learning rates; norms, biases and the logit scale do not decay."""
        groups = {}
        for name, parameter in self.named_parameters():
            part = "item" if name.startswith("item_encoder") and self.rates["item"] is not None else "user"
            decays = self.decay_everything or parameter.dim() > 1
            groups.setdefault((part, decays), []).append(parameter)
        return [
            {"params": parameters}
            | ({"lr": self.rates["item"]} if part == "item" else {})
            | ({} if decays else {"weight_decay": 0.0})
            for (part, decays), parameters in sorted(groups.items())
        ]


def load_pretrained_hllm(model: HLLM, path: str | Path) -> None:
    """Loads a checkpoint in the layout of the official code: one flat ``pytorch_model.bin``, weights only.

    Heads, poolers and the User LLM's word embeddings, which HLLM does not use, are left out.

    Raises:
        ModelError: not such a file, or its weights do not fit the model.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"pretrained_hllm: {path}: {error.strerror or error}") from error
    except Exception as error:  # torch's message would advise to load it all the same
        raise ModelError(
            f"pretrained_hllm: {path} is damaged or holds more than weights ({type(error).__name__}); give the "
            "pytorch_model.bin of the official code"
        ) from error
    named = isinstance(saved, dict) and all(isinstance(name, str) for name in saved)
    if not named or not all(isinstance(weight, torch.Tensor) for weight in saved.values()):
        raise ModelError(f"pretrained_hllm: {path} is no flat list of named weights, as the official code's is")
    weights = {new: value for name, value in saved.items() if (new := _our_name(name))}
    own = model.state_dict()
    unknown = sorted(weights.keys() - own.keys())
    missing = sorted(name for name in own.keys() - weights.keys() if "projection" not in name)
    shapes = [name for name in weights.keys() & own.keys() if weights[name].shape != own[name].shape]
    if unknown or missing or shapes:
        raise ModelError(
            f"pretrained_hllm: {path} does not fit the Item LLM, User LLM and item_emb_token_n of this config: "
            f"missing {missing[:3]}, unknown {unknown[:3]}, other shape {shapes[:3]}"
        )
    model.load_state_dict({**own, **weights})


def _our_name(name: str) -> str | None:
    """A weight's name here, or None where HLLM has no such weight."""
    if name in ("logit_scale",):
        return name
    if name == "item_emb_tokens":
        return "item_encoder.item_emb_tokens"
    part, _, rest = name.partition(".")
    rest = rest.removeprefix("model.")
    unused = rest.startswith(("lm_head.", "pooler.")) or rest.endswith(("inv_freq", "position_ids"))
    if unused or (part == "user_llm" and rest.startswith(("embed_tokens.", "wte."))):
        return None
    return {"item_llm": "item_encoder.backbone.", "user_llm": "user_encoder.backbone."}.get(part, f"{part}.") + rest


def _item_spec(config) -> BackboneSpec:
    if not config["item_pretrain_dir"]:
        raise ConfigError("item_pretrain_dir: name the Item LLM; with item_llm_init: False only its sizes are used")
    return _spec(config, "item", config["item_pretrain_dir"], config["item_llm_config"])


def _user_spec(config) -> BackboneSpec:
    folder = config["user_pretrain_dir"]
    if config["user_llm_init"] and not folder:
        raise ConfigError("user_llm_init: True needs user_pretrain_dir, the pretrained User LLM")
    llm_config = config["user_llm_config"]
    # Our default is for a User LLM without a folder; a finished run's config.yaml names it as if the user had.
    if folder and llm_config == config.internal_config_dict.get("user_llm_config"):
        llm_config = None
    return _spec(config, "user", folder, llm_config)


def _spec(config, part, source, llm_config) -> BackboneSpec:
    pretrained = config[f"{part}_llm_init"]
    if llm_config is not None and not isinstance(llm_config, dict):
        raise ConfigError(f"{part}_llm_config: {llm_config!r} is not a dict of keys of the Hugging Face config")
    if pretrained and llm_config:
        raise ConfigError(f"{part}_llm_config: pretrained weights fix these keys; {part}_llm_init: False frees them")
    # Weights that a checkpoint replaces at once need not be read first.
    read = pretrained and not getattr(config, "weights_follow", False)
    return BackboneSpec(
        source,
        init="pretrained" if read else "scratch",
        num_layers=config[f"{part}_llm_layers"],
        config=llm_config,
        gradient_checkpointing=config["gradient_checkpointing"],
        attn_implementation=_attention(config),
        trust_remote_code=config["trust_remote_code"],
    )


def _set_dropout(llm, probability):
    """Causal LLMs have none; a BERT-type Item LLM without it trains as they do, and faster."""
    if probability is not None:
        for module in llm.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = probability


def _attention(config):
    """On a CPU plain matrix products beat the fused kernel for texts and histories of a few dozen tokens."""
    return config["attn_implementation"] or ("eager" if config["device"].type == "cpu" else None)


def read_texts(config, dataset) -> ItemTexts:
    """The fields named in ``text_keys`` of ``<dataset>.item``, for every item of the data set."""
    path = Path(config["data_path"]) / f"{config['dataset']}.item"
    keys = config["text_keys"] or _text_columns(path, config)
    return read_item_texts(
        path,
        [keys] if isinstance(keys, str) else keys,
        dataset.field2id_token[dataset.iid_field],
        item_field=dataset.iid_field,
        field_separator=config["field_separator"],
        encoding=config["encoding"] or "utf-8",
        strict=bool(config["strict_data"]),
    )


def build_catalogue(config, texts: ItemTexts) -> ItemCatalogue:
    """Every item's text and token ids, by the Item LLM's tokenizer."""
    names = referenced(config)
    template = TextTemplate(
        texts.keys,
        config["item_prompt"] or "",
        config["text_separator"] or "",
        unescape_html="raw_text" not in names,
        missing_words_dropped="missing_words" in names,
        field=config["text_field"],
    )
    tokenizer = load_tokenizer(config["item_pretrain_dir"], config["trust_remote_code"])
    cache = cache_folder(config["cache_dir"], config["data_path"])
    return ItemCatalogue.build(
        texts, template, tokenizer, max_text_length=config["MAX_TEXT_LENGTH"], cache=cache, reference=names
    )


def _text_columns(path, config):
    """Every text column of the item file."""
    if not path.is_file():
        raise ConfigError(f"there is no {path}: HLLM reads items' texts from it")
    header = read_header(path, config["field_separator"], config["encoding"])
    columns = [name for name, kind in header.items() if kind == FeatureType.TOKEN_SEQ]
    if not columns:
        raise ConfigError(f"text_keys: {path} has no token_seq column; name its text columns, there are {list(header)}")
    return columns


def _log_set_up(logger, config, model):
    pooled = "mean over the text" if model.item_encoder.item_emb_tokens is None else "[ITEM] token"
    item_start, user_start = ("pretrained" if config[f"{part}_llm_init"] else "scratch" for part in ("item", "user"))
    logger.info(
        f"Item LLM {config['item_pretrain_dir']} ({item_start}, {pooled}), "
        f"User LLM {config['user_pretrain_dir'] or 'small ' + config['user_llm_config']['model_type']} ({user_start}), "
        f"texts: {config['text_keys'] or 'every text column'}"
    )
    if not config["user_llm_init"]:
        logger.info(
            "the paper's set-up, for GPUs: item_pretrain_dir and user_pretrain_dir TinyLlama/"
            "TinyLlama-1.1B-intermediate-step-1431k-3T, user_llm_init: True, see properties/model/HLLM.yaml"
        )
