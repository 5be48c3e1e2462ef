"""TextKNN: nearest neighbours of the history among the item vectors of a frozen language model."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_hllm.data.protocol import referenced
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.contract import Factorised, ReadsWeights, Weights
from recbole_hllm.model.base.item_texts import build_catalogue, read_texts, text_columns
from recbole_hllm.model.base.item_vectors import encode_catalogue
from recbole_hllm.model.base.language_models import attention, chunk_tokens, named_item_llm
from recbole_hllm.model.base.llm_fit import check_text_llm, check_words
from recbole_hllm.model.base.training_free import TrainingFree
from recbole_hllm.nn.backbone import BackboneSpec, load_backbone, load_tokenizer
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.storage.cache import cache_folder


class TextKNN(TrainingFree, Factorised, ReadsWeights):
    """Score: cosine of an item's vector and the mean of the history's vectors, each of length 1.

    Item vectors are HLLM's before any training: the mean over the text's last hidden states of the pretrained Item
    LLM ([ITEM], a token to be learned, would say nothing). They are computed once; the LLM is then let go.

    Args:
        config: the run's Config; keys are explained in ``properties/model/TextKNN.yaml``.
        dataset: the training part of a SequenceDataset.
        weights: whether there are item vectors at once.

    Raises:
        ConfigError, DataError, ModelError: texts and language model are missing or do not fit together.
    """

    # RecBole's name for what a checkpoint holds besides weights: vectors that are read need no LLM.
    other_parameter_name = ["vectors"]

    def __init__(self, config, dataset, weights: Weights = Weights.FRESH):
        super().__init__(config, dataset)
        self.knn_history = config["knn_history"]
        self.vectors = None
        if weights.are_read:
            self.check_keys(config)
            self.vectors = F.normalize(_encode(config, dataset), dim=-1)

    @classmethod
    def check_files(cls, config) -> None:
        """Looks for item texts and the Item LLM's tokenizer.

        Raises:
            ConfigError, DataError, ModelError: one of them is missing.
        """
        path = Path(config["data_path"]) / f"{config['dataset']}.item"
        if not path.is_file():
            raise ConfigError(f"there is no {path} to read item texts from")
        text_columns(path, config)
        load_tokenizer(_source(config), config["trust_remote_code"])

    @classmethod
    def check_keys(cls, config) -> None:
        """Raises ConfigError or ModelError where the Item LLM does not fit the keys, whatever the data are."""
        check_text_llm(config, _spec(config), "item_pretrain_dir")

    def item_vectors(self) -> Tensor:
        """(n_items, D) vectors of length 1; row 0 is the padding item's, zeros."""
        return self.vectors

    def user_vectors(self, interaction) -> Tensor:
        """(B, D) mean vectors of the last ``knn_history`` items, zeros where the history is empty.

        Args:
            interaction: ``item_id_list`` (B, L) padded on the right with 0 and ``item_length`` (B,).
        """
        items, length = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN][:, None]
        place = torch.arange(items.shape[1], device=items.device)
        read = place < length
        if self.knn_history:
            read &= place >= length - self.knn_history
        total = F.embedding_bag(items, self.vectors, per_sample_weights=read.to(self.vectors.dtype), mode="sum")
        return total / read.sum(dim=1, keepdim=True).clamp(min=1)

    def predict(self, interaction) -> Tensor:
        """(B,) cosine of each row's user vector and its item's vector."""
        return (self._directions(interaction) * self.vectors[interaction[self.ITEM_ID]]).sum(dim=-1)

    def full_sort_predict(self, interaction) -> Tensor:
        """(B, n_items) cosine of each row's user vector and every item's vector."""
        return self._directions(interaction) @ self.vectors.T

    def _directions(self, interaction):
        return F.normalize(self.user_vectors(interaction), dim=-1)


def _source(config) -> str:
    return named_item_llm(config, "Item LLM whose vectors are compared")


def _spec(config) -> BackboneSpec:
    return BackboneSpec(
        _source(config),
        num_layers=config["item_llm_layers"],
        layers_key="item_llm_layers",
        attn_implementation=attention(config),
        trust_remote_code=config["trust_remote_code"],
    )


def _encode(config, dataset) -> Tensor:
    """(n_items, D) float32 vectors of all items, row 0 zeros."""
    catalogue = build_catalogue(config, read_texts(config, dataset))
    encoder = ItemEncoder(
        load_backbone(_spec(config)),
        item_emb_token_n=0,
        max_text_length=config["MAX_TEXT_LENGTH"],
        right_aligned_positions="positions" in referenced(config),
    )
    check_words(encoder.backbone, catalogue.tokens, _source(config))
    vectors = encode_catalogue(
        encoder.to(config["device"]),
        catalogue,
        precision=config["precision"],
        token_budget=chunk_tokens(config),
        cache=cache_folder(config["cache_dir"], config["data_path"]) if config["item_vector_cache"] else None,
    )
    return torch.from_numpy(np.array(vectors)).to(config["device"])
