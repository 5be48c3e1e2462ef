"""HLLM, generative (arXiv 2409.12740): an Item LLM turns texts into item vectors, a User LLM predicts the next one."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from recbole.data.dataset.dataset import Dataset
from torch import Tensor

from recbole_hllm.config.keys.hllm import HLLMKeys
from recbole_hllm.data.rows.columns import EVENT_ACTIONS, EVENT_TIME, EVENT_TIMES
from recbole_hllm.data.rows.window import check_negatives
from recbole_hllm.data.texts.item_texts import ItemTexts
from recbole_hllm.errors import ModelError
from recbole_hllm.model.base.contract import ItemReading, ReadsWeights, Weights
from recbole_hllm.model.base.input_features import build_input_features
from recbole_hllm.model.base.item_memory import ItemMemory
from recbole_hllm.model.base.item_texts import build_catalogue, read_texts
from recbole_hllm.model.base.item_vectors import encode_by_all, encode_catalogue, encoder_digest, vector_cache
from recbole_hllm.model.base.language_models import lora_settings
from recbole_hllm.model.base.llm_fit import check_text_llm, check_user_llm, check_words, history_lengths
from recbole_hllm.model.base.next_item import History, NextItemRecommender
from recbole_hllm.model.base.servable import Staged, TrainingPart
from recbole_hllm.model.base.together import distinct_of_all
from recbole_hllm.model.base.token_states import UpperLayers
from recbole_hllm.model.base.unread_keys import tell_unread
from recbole_hllm.model.hllm.exported import text_side_of, training_part_of, user_model_of
from recbole_hllm.model.hllm.item_cache import build_cache, check_cache, check_catalogue_limit
from recbole_hllm.model.hllm.item_part import build_bounded_ids, check_item_part, tell_unread_of_item_part
from recbole_hllm.model.hllm.item_reading import item_reading, items_are_trained
from recbole_hllm.model.hllm.language_models import (
    build_item_encoder,
    check_tuning,
    export_to_come,
    item_emb_token_n,
    item_llm_source,
    item_spec,
    item_tokenizer_source,
    pretrained_hllm_needed,
    user_llm_source,
    user_spec,
)
from recbole_hllm.model.hllm.learning_rates import parameter_groups
from recbole_hllm.model.hllm.pretrained import load_pretrained_hllm
from recbole_hllm.nn.backbone import load_backbone, load_tokenizer
from recbole_hllm.nn.chunked import encode_items
from recbole_hllm.nn.gathered import deal, gather_rows, of_first
from recbole_hllm.nn.item_encoder import ItemEncoder, StoredItemVectors
from recbole_hllm.nn.losses import InfoNCEResult
from recbole_hllm.nn.negatives import Negatives
from recbole_hllm.nn.precision import autocast
from recbole_hllm.nn.tuning import tune
from recbole_hllm.nn.user_encoder import UserEncoder
from recbole_hllm.nn.user_models.language import UserLLM
from recbole_hllm.processes import current
from recbole_hllm.serving.sentence_folder import TextSide
from recbole_hllm.storage.cache import digest

# Keys that say nothing of one whose vectors are stored.
_OF_TRAINED_ITEM_LLM = ("recompute_items", "item_llm_dropout", "item_learning_rate")


class HLLM(NextItemRecommender, ReadsWeights, Staged):
    """Hierarchical LLM for sequential recommendation.

    Trains on windows of S + 1 items with K negatives shared by the batch; each distinct item of a batch is encoded
    once.

    Args:
        config: the run's Config; keys are explained in ``properties/model/HLLM.yaml``.
        dataset: the training part of a SequenceDataset.
        item_texts: the fields named in ``text_keys`` of every item, for texts that a tab-separated file cannot hold;
            read from ``<dataset>.item`` when not given.
        weights: whether those of the language models are read.

    Raises:
        ConfigError, DataError, ModelError: texts, language models or their sizes do not fit together.
    """

    Keys: ClassVar[type[HLLMKeys]] = HLLMKeys
    settings: HLLMKeys
    FURTHER_VECTORS = 0  # that the User LLM reads after a history

    def __init__(
        self, config: Any, dataset: Dataset, item_texts: ItemTexts | None = None, weights: Weights = Weights.FRESH
    ) -> None:
        self.check_keys(config)
        super().__init__(config, dataset)
        settings = self.settings
        self.item_memory = ItemMemory(settings)
        self.item_llm_is_frozen = settings.item_llm_tuning == "frozen"
        if settings.negatives == "catalogue" and not self.item_llm_is_frozen:
            check_catalogue_limit(settings, self.n_items - 1)
        self._finished = weights is Weights.FOLLOW  # until it is trained again
        source, texts = item_tokenizer_source(settings), item_texts or read_texts(settings, dataset)
        tokenizer = load_tokenizer(source, settings.trust_remote_code)
        self.text_keys, self.catalogue = texts.keys, build_catalogue(settings, texts, tokenizer, source)
        self.user_encoder = UserEncoder(load_backbone(user_spec(settings, weights)))
        encoder = build_item_encoder(settings, self.user_encoder.hidden_size, weights)
        self.item_encoder: ItemEncoder | StoredItemVectors = encoder
        check_words(encoder.backbone, self.catalogue.tokens, source)
        self.add_parts(dataset)
        _log_set_up(self)
        if pretrained_hllm_needed(settings, weights):
            assert settings.pretrained_hllm is not None, "needed means named"
            load_pretrained_hllm(self, settings.pretrained_hllm)
        tune(self.user_encoder.backbone, settings.user_llm_tuning, lora_settings(settings))
        if self.item_llm_is_frozen:
            tell_unread(self.logger, settings, _OF_TRAINED_ITEM_LLM, "item_llm_tuning is frozen")
            self.item_encoder = self._let_go_of_item_llm(encoder, weights)
        else:
            tune(encoder.backbone, settings.item_llm_tuning, lora_settings(settings), settings.item_llm_layers_trained)
        self._upper: UpperLayers | None = None  # once states of the lower layers are needed
        self._weights_moved = True  # since the statistics of whitening were taken
        has_weights = self.id_part is not None or any(True for _ in encoder.projection.parameters())
        tell_unread_of_item_part(self.logger, settings, has_weights)

    @classmethod
    def check_keys(cls, config: Any) -> None:
        """Raises ConfigError for values that are wrong whatever the data and the weights are."""
        settings = cls.Keys.of(config)
        check_negatives(settings)
        check_cache(settings)
        check_item_part(settings)
        lora_settings(settings)
        check_tuning(settings, settings.item_llm)
        check_tuning(settings, settings.user_llm)
        if not export_to_come(settings):
            cls.check_llms(config)

    @classmethod
    def check_llms(cls, config: Any) -> None:
        """Raises ConfigError or ModelError where the two LLMs do not fit the keys, whatever the data are."""
        settings = cls.Keys.of(config)
        item, user, lora = item_spec(settings), user_spec(settings), lora_settings(settings)
        key = "user_pretrain_dir" if user.source else "user_llm_config"
        of_user = lora if settings.user_llm_tuning == "lora" else None
        check_user_llm(user, key, of_user, history_lengths(settings), cls.FURTHER_VECTORS)
        of_item = lora if settings.item_llm_tuning == "lora" else None
        tokens = partial(item_emb_token_n, settings)
        check_text_llm(item, "item_pretrain_dir", settings.MAX_TEXT_LENGTH, of_item, tokens)

    def add_parts(self, dataset: Any) -> None:
        """What is trained beside the two LLMs, before weights of ``pretrained_hllm`` are read."""
        self.ids_digest = digest(*map(str, dataset.field2id_token[self.ITEM_ID]))
        width = self.user_encoder.hidden_size
        self.input_features = build_input_features(self.settings, dataset, width)
        self.id_part = build_bounded_ids(self.settings, dataset, width)
        self.use_further_negatives(dataset, width)
        self.cache = build_cache(self.settings, self.n_items, width)

    def _let_go_of_item_llm(self, encoder: ItemEncoder, weights: Weights) -> StoredItemVectors:
        """Every item's vector is computed now, or read from the cache; the Item LLM's memory is free again."""
        if weights is Weights.OUTLINE:  # nothing to compute them with
            vectors = np.zeros((0, encoder.pooled_size), np.float32)
            return StoredItemVectors(vectors, encoder.projection, "00", encoder.whitening)
        encoder = encoder.to(self.settings.device)
        source = encoder_digest(encoder)
        vectors = self._pooled_vectors(encoder, vector_cache(self.settings), source)
        # Statistics of a checkpoint will be loaded; those of pretrained_hllm are what its head was trained with.
        if encoder.whitening is not None and weights is not Weights.FOLLOW and not encoder.whitening.items:
            encoder.whitening.fit(vectors[1:])
        return StoredItemVectors(vectors, encoder.projection, source, encoder.whitening)

    def _pooled_vectors(self, encoder: ItemEncoder, cache: Path | None, weights: str | None = None) -> np.ndarray:
        """(n_items, H) vectors before whitening and projection."""
        return encode_catalogue(
            encoder,
            self.catalogue,
            precision=self.settings.precision,
            token_budget=self.item_memory.chunk_tokens(encoder),
            cache=cache,
            weights=weights,
        )

    # ---- what the two language models compute ----

    def vectors_of(self, ids: Tensor) -> Tensor:
        """(N,) item ids -> (N, D) vectors; each distinct item is encoded once, the padding item's vector is 0."""
        distinct, places = torch.unique(ids, return_inverse=True)
        real = distinct[distinct != 0]
        vectors = self._with_ids(real, self._encode(real))
        padding = vectors.new_zeros(len(distinct) - len(real), vectors.shape[1])
        return torch.cat([padding, vectors])[places]

    def _with_ids(self, ids: Tensor, vectors: Tensor) -> Tensor:
        """(N,) ids of real items and (N, D) vectors of their texts -> (N, D) item vectors."""
        return vectors if self.id_part is None else self.id_part(ids, vectors)

    def _encode(self, ids: Tensor) -> Tensor:
        """(N,) different ids of real items, in rising order -> (N, D) vectors of their texts. In a training these are
        ids of this process's rows, and each item of the whole batch is encoded once."""
        self._weights_moved = self._weights_moved or self.training
        of_batch = distinct_of_all(ids) if self.training else ids
        self.items_encoded = len(of_batch)
        if isinstance(self.item_encoder, StoredItemVectors):
            return self.item_encoder(ids)
        if not self.training:
            return self._encode_own(ids)
        vectors = self._encode_together(of_batch) if self.cache is None else self._encode_some(of_batch)
        return vectors if of_batch is ids else vectors[torch.searchsorted(of_batch, ids)]

    def _encode_some(self, ids: Tensor) -> Tensor:
        """(N,) different ids of a step's items -> (N, D) vectors, of ``live_items`` of them with gradients."""
        assert self.cache is not None, "who has none encodes all"
        self.cache.begin_step(self._encode_again)
        most = self.settings.live_items
        drawn = torch.randperm(len(ids))[:most].sort().values if most is not None else torch.arange(len(ids))
        live = drawn.to(ids.device)
        if current().world_size > 1:
            live = of_first(live)
        self.items_encoded = len(live)
        return self.cache.with_live(ids, live, self._encode_together(ids[live]))

    @torch.no_grad()
    def _encode_again(self, ids: Tensor) -> Tensor:
        """(N,) ids -> (N, D) vectors without gradients and dropout."""
        self.item_encoder.eval()
        try:
            return self._encode_together(ids)
        finally:
            self.item_encoder.train()

    def _encode_together(self, ids: Tensor) -> Tensor:
        """(N,) ids, the same in all processes -> (N, D) vectors, each of which one process computes."""
        processes = current()
        if processes.world_size == 1 or not len(ids):
            return self._encode_own(ids)
        numbers = ids.cpu().numpy()
        lengths = self.catalogue.offsets[numbers + 1] - self.catalogue.offsets[numbers]
        hands = deal(torch.from_numpy(lengths), processes.world_size)
        own = self._encode_own(ids[hands[:, processes.rank].to(ids.device)])
        vectors = gather_rows(own, [len(hands)] * processes.world_size, processes.rank)
        place = torch.empty(len(ids), dtype=torch.long)
        place[hands.T.reshape(-1)] = torch.arange(hands.numel())
        return vectors[place.to(ids.device)]

    def _encode_own(self, ids: Tensor) -> Tensor:
        """(N,) ids -> (N, D) vectors, which this process computes."""
        assert isinstance(self.item_encoder, ItemEncoder), "stored vectors are looked up"
        memory, trains = self.item_memory, self.training and torch.is_grad_enabled()
        encoder: ItemEncoder | UpperLayers = self.item_encoder
        tokens, lengths = self.catalogue.lookup(ids)
        if self.settings.item_llm_tuning == "last" and self.training:
            encoder = self._upper_layers(self.item_encoder)
            tokens, lengths = self.catalogue.places(ids)
        return encode_items(
            encoder,
            tokens.to(ids.device),
            lengths.to(ids.device),
            token_budget=memory.chunk_tokens(self.item_encoder),
            recompute=trains and memory.recompute(self, self.item_encoder, lengths.tolist()),
        )

    def _upper_layers(self, encoder: ItemEncoder) -> UpperLayers:
        """The layers that are trained; what those below make of all texts is computed or read at the first need."""
        if self._upper is None:
            layers = self.settings.item_llm_layers_trained
            assert layers is not None, "check_tuning"
            budget = self.item_memory.chunk_tokens(encoder)
            self._upper = UpperLayers(encoder, self.catalogue, layers, self.settings, budget)
        return self._upper

    def read_history(self, vectors: Tensor, history: History) -> Tensor:
        """(B, S, D) item vectors -> (B, S, D) predictions by the User LLM, which reads them with their features.

        Raises:
            ModelError: rows not built by our loaders lack times or actions that the model was trained with.
        """
        seconds = history.times if self.settings.time_of == "item" else history.next_times
        for wanted, given, field in (
            (self.input_features.time, seconds, f"{EVENT_TIMES} and {EVENT_TIME}"),
            (self.input_features.action, history.actions, EVENT_ACTIONS),
        ):
            if wanted is not None and given is None:
                raise ModelError(f"the rows have no {field}, which this model reads; take rows of the data's loaders")
        inputs = self.input_features(vectors, history.items, seconds, history.actions)
        return self.user_encoder(F.dropout(inputs, self.settings.input_dropout, self.training))

    def catalogue_vectors(self) -> Tensor:
        """(n_items, D) vectors of all items, in the precision of the training.

        Those of a finished run's weights are read from the cache, or kept there for the next evaluation; while
        weights are trained nothing is written.
        """
        device = self.logit_scale.device
        with autocast(device, self.autocast_dtype):
            if isinstance(self.item_encoder, StoredItemVectors):
                return super().catalogue_vectors()
            kept = vector_cache(self.settings) if self._finished else None
            if kept is None and self.item_encoder.whitening is None:
                budget = self.item_memory.chunk_tokens(self.item_encoder)
                table = encode_by_all(self.item_encoder, self.catalogue, token_budget=budget)
            else:
                vectors = self._pooled_vectors(self.item_encoder, kept)
                self._whiten_as(vectors)
                table = self.item_encoder.project(torch.from_numpy(np.array(vectors)).to(device))
            table = self._with_ids(torch.arange(self.n_items, device=device), table)
            table[0] = 0  # the padding item's; a projection has a bias
            return table

    def _whiten_as(self, vectors: np.ndarray) -> None:
        """Takes the statistics of (n_items, H) vectors that the Item LLM gives now."""
        assert isinstance(self.item_encoder, ItemEncoder), "those of stored vectors stay"
        if self.item_encoder.whitening is not None:
            self.item_encoder.whitening.fit(vectors[1:])
            self._weights_moved = False

    def begin_epoch(self, epoch: int) -> None:
        """Statistics of whitening are those of the weights that there are now. An evaluation takes them, too."""
        encoder = self.item_encoder
        if isinstance(encoder, ItemEncoder) and encoder.whitening is not None and self._weights_moved:
            self._whiten_as(self._pooled_vectors(encoder, None))

    def train(self, mode: bool = True) -> "HLLM":
        """Weights that are trained are no finished run's any more."""
        self._finished = self._finished and not mode
        return super().train(mode)

    # ---- for plans ----

    def item_reading(self) -> ItemReading:
        """Items of a batch are read once each."""
        return item_reading(self)

    def items_are_trained(self) -> bool:
        """Whether the Item LLM, what comes after it, or a part of the item's id is."""
        return items_are_trained(self)

    # ---- for other programs ----

    def user_model(self) -> UserLLM:
        """The User LLM, with what is added to its inputs."""
        return user_model_of(self)

    def text_side(self) -> TextSide:
        """The Item LLM, with whitening and head; vectors have no part of an id."""
        return text_side_of(self)

    def training_part(self, text_side: TextSide | None) -> TrainingPart:
        """All beside the Item LLM, which ``text_side`` has."""
        assert text_side is not None, "of an HLLM"
        return training_part_of(self, text_side.encoder)

    # ---- training ----

    def contrast(
        self, outputs: Tensor, targets: Tensor, target_ids: Tensor, drawn: Negatives, items: Tensor
    ) -> InfoNCEResult:
        """Also with the negatives of the cache."""
        if self.settings.negatives == "cached":
            assert self.cache is not None, "check_cache"
            drawn = self.cache.all_items(drawn.ids, distinct_of_all(items.unique()))
            drawn = replace(drawn, vectors=self._with_ids(drawn.ids, drawn.vectors))
        return super().contrast(outputs, targets, target_ids, drawn, items)

    def report(self, result: InfoNCEResult) -> None:
        """Also how many items were encoded."""
        super().report(result)
        terms = dict(self.loss_terms)
        rate = terms.pop("batches/s") * self.items_encoded
        self.loss_terms = {**terms, "distinct_items": self.items_encoded, "items/s": rate}
        if self.cache is not None:
            self.loss_terms["cache_age"] = self.cache.age()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Item head and id part, Item LLM, and the rest with their own learning rates; norms, biases and the logit
        scale do not decay.

        Raises:
            ConfigError: nothing is trained.
        """
        return parameter_groups(self, self.settings)


def _log_set_up(model: HLLM) -> None:
    settings, item, user = model.settings, model.settings.item_llm, model.settings.user_llm
    pooled = "mean over the text" if model.item_encoder.item_emb_tokens is None else "[ITEM] token"
    item_start, user_start = (
        "pretrained" if llm.init or settings.pretrained_hllm else "scratch" for llm in (item, user)
    )
    small = f"small {(user.config or {}).get('model_type', '')}"
    model.logger.info(
        f"Item LLM {item_llm_source(settings)} ({item_start}, {pooled}, tuning {item.tuning}), User LLM "
        f"{user_llm_source(settings) or small} ({user_start}, tuning {user.tuning}), texts: "
        f"{settings.text_keys or 'every text column'}"
    )
    if user_start == "scratch":
        model.logger.info(
            "the paper's set-up, for GPUs: item_pretrain_dir and user_pretrain_dir TinyLlama/"
            "TinyLlama-1.1B-intermediate-step-1431k-3T, user_llm_init: True, see properties/model/HLLM.yaml"
        )
