"""HLLM, generative (arXiv 2409.12740): an Item LLM turns texts into item vectors, a User LLM predicts the next one."""

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from recbole.data.dataset.dataset import Dataset
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import FeatureType, InputType

from recbole_hllm.data.cache import cache_folder
from recbole_hllm.data.catalogue import ItemCatalogue
from recbole_hllm.data.protocol import referenced
from recbole_hllm.data.reader import read_header
from recbole_hllm.data.texts import ItemTexts, TextTemplate, read_item_texts
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.keys import AUTOCAST_DTYPES
from recbole_hllm.nn.backbone import BackboneSpec, is_bidirectional, load_backbone, load_tokenizer
from recbole_hllm.nn.chunked import encode_items
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.losses import clamp_logit_scale, info_nce, new_logit_scale
from recbole_hllm.nn.user_encoder import UserEncoder

# So many batches in a row with almost no negatives left are a collapse and not an accident.
_COLLAPSE_PATIENCE = 10


class HLLM(SequentialRecommender):
    """Hierarchical LLM for sequential recommendation.

    Trains on windows of S + 1 items with K negatives shared by the batch; each distinct item of a batch is encoded
    once. In evaluation mode the whole catalogue is encoded at the first need and kept until training goes on.

    Args:
        config: the run's Config; keys are explained in ``properties/model/HLLM.yaml``.
        dataset: the training part of a SequenceDataset.
        item_texts: the fields named in ``text_keys`` of every item, for texts that a tab-separated file cannot hold;
            read from ``<dataset>.item`` when not given.

    Raises:
        ConfigError, DataError, ModelError: texts, language models or their sizes do not fit together.
    """

    input_type = InputType.POINTWISE

    def __init__(self, config, dataset: Dataset, item_texts: ItemTexts | None = None):
        super().__init__(config, dataset)
        self.nce_thres = config["nce_thres"]
        self.min_surviving = config["min_surviving_negatives"] or 0.0
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
        self.logit_scale = new_logit_scale()
        self.loss_terms: dict[str, float] = {}
        self._table, self._starved, self._clock = None, 0, None
        if config["pretrained_hllm"] and not getattr(config, "weights_follow", False):
            load_pretrained_hllm(self, config["pretrained_hllm"])
        _log_set_up(self.logger, config, self)

    # ---- training ----

    def calculate_loss(self, interaction):
        """InfoNCE of every position of the windows against the shared negatives (section 3.2).

        Args:
            interaction: ``item_id_list`` (B, S + 1) padded on the right with 0, ``neg_item_id`` (1, K).

        Returns:
            Scalar loss; ``loss_terms`` holds the numbers behind it.

        Raises:
            ModelError: almost no negative has been left for many batches in a row.
        """
        windows = interaction[self.ITEM_SEQ]
        negatives = interaction[self.NEG_ITEM_ID].reshape(-1)
        ids, places = torch.unique(torch.cat([windows.reshape(-1), negatives]), return_inverse=True)
        vectors = self._encode(ids)
        sequence = vectors[places[: windows.numel()].view_as(windows)]
        outputs = self.user_encoder(sequence[:, :-1])
        real = windows[:, 1:] != 0
        result = info_nce(
            outputs[real],
            sequence[:, 1:][real],
            vectors[places[windows.numel() :]],
            windows[:, 1:][real],
            negatives,
            clamp_logit_scale(self.logit_scale),
            self.nce_thres,
        )
        self._report(result, torch.count_nonzero(ids).item())
        return result.loss

    def _report(self, result, encoded):
        now = time.perf_counter()
        rate = encoded / (now - self._clock) if self._clock else 0.0
        self._clock = now
        surviving = result.surviving.item()
        self.loss_terms = {
            "surviving_negatives": surviving,
            "items/s": rate,
            "distinct_items": encoded,
            "logit_scale": self.logit_scale.detach().exp().item(),
            **{f"top{k}_accuracy": value.item() for k, value in result.accuracy.items()},
        }
        self._starved = self._starved + 1 if surviving < self.min_surviving else 0
        if self._starved >= _COLLAPSE_PATIENCE:
            raise ModelError(
                f"collapse: for {self._starved} batches fewer than {self.min_surviving} negatives a target survived "
                f"the filter (nce_thres {self.nce_thres}), so item vectors have become nearly parallel or "
                "num_negatives is too small for this catalogue; try a smaller item_learning_rate, a larger "
                "nce_thres, or more negatives"
            )

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

    # ---- vectors ----

    def _encode(self, ids):
        """(N,) distinct ids in rising order -> (N, D) vectors, the padding item's being 0."""
        tokens, lengths = self.catalogue.lookup(ids[ids != 0])
        vectors = encode_items(
            self.item_encoder,
            tokens.to(ids.device),
            lengths.to(ids.device),
            token_budget=self.token_budget,
            recompute=self.recompute and self.training,
        )
        padding = vectors.new_zeros(len(ids) - len(lengths), vectors.shape[1])
        return torch.cat([padding, vectors])

    def train(self, mode: bool = True):
        """The catalogue's vectors are forgotten when training goes on."""
        if mode:
            self._table = None
        self._clock = None
        return super().train(mode)

    def load_state_dict(self, *args, **kwargs):
        """The catalogue's vectors are those of the old weights."""
        self._table = None
        return super().load_state_dict(*args, **kwargs)

    @torch.no_grad()
    def item_vectors(self) -> torch.Tensor:
        """(n_items, D) vectors of the whole catalogue, not normalised; row 0 is the padding item's, zeros."""
        if self._table is None or self.training:
            mode, device = self.training, self.logit_scale.device
            super().train(False)
            with torch.autocast(device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None):
                self._table = self._encode(torch.arange(self.n_items, device=device)).float()
            super().train(mode)
        return self._table

    def user_vectors(self, interaction) -> torch.Tensor:
        """(B, D) predicted vectors of each user's next item, not normalised.

        Args:
            interaction: ``item_id_list`` (B, L) padded on the right with 0, ``item_length`` (B,).
        """
        history, length = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        history = history[:, : max(int(length.max()), 1)]
        outputs = self.user_encoder(self.item_vectors()[history])
        return self.gather_indexes(outputs, (length - 1).clamp(min=0)).float()

    # ---- scores ----

    def predict(self, interaction) -> torch.Tensor:
        """(B,) cosine of each row's user vector and its item's vector."""
        items = self.item_vectors()[interaction[self.ITEM_ID]]
        return F.cosine_similarity(self.user_vectors(interaction), items, dim=-1)

    def full_sort_predict(self, interaction) -> torch.Tensor:
        """(B, n_items) cosine of each row's user vector and every item's vector."""
        return F.normalize(self.user_vectors(interaction), dim=-1) @ F.normalize(self.item_vectors(), dim=-1).T


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
