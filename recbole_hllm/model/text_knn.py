"""TextKNN: nearest neighbours of the history among the item vectors of a frozen language model."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_hllm.data.protocol import referenced
from recbole_hllm.errors import ConfigError
from recbole_hllm.keys import AUTOCAST_DTYPES
from recbole_hllm.model.item_texts import build_catalogue, read_texts, text_columns
from recbole_hllm.model.language_models import llm_source
from recbole_hllm.model.training_free import TrainingFree
from recbole_hllm.nn.backbone import BackboneSpec, load_backbone, load_tokenizer
from recbole_hllm.nn.chunked import encode_items
from recbole_hllm.nn.item_encoder import ItemEncoder


class TextKNN(TrainingFree):
    """Score: cosine of an item's vector and the mean of the history's vectors, each of length 1.

    Item vectors are HLLM's before any training: the mean over the text's last hidden states of the pretrained Item
    LLM ([ITEM], a token to be learned, would say nothing). They are computed once; the LLM is then let go.

    Args:
        config: the run's Config; keys are explained in ``properties/model/TextKNN.yaml``.
        dataset: the training part of a SequenceDataset.

    Raises:
        ConfigError, DataError, ModelError: texts and language model are missing or do not fit together.
    """

    # RecBole's name for what a checkpoint holds besides weights: vectors that are read need no LLM.
    other_parameter_name = ["vectors"]

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.knn_history = config["knn_history"]
        self.vectors = None
        if not getattr(config, "weights_follow", False):
            self.vectors = F.normalize(_encode(config, dataset), dim=-1)

    @staticmethod
    def check_needs(config):
        """Looks for item texts and the Item LLM's tokenizer.

        Raises:
            ConfigError, DataError, ModelError: one of them is missing.
        """
        path = Path(config["data_path"]) / f"{config['dataset']}.item"
        if not path.is_file():
            raise ConfigError(f"there is no {path} to read item texts from")
        text_columns(path, config)
        load_tokenizer(_source(config), config["trust_remote_code"])

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
    source = llm_source(config, "item")
    if not source:
        raise ConfigError("item_pretrain_dir: name the Item LLM whose vectors are compared")
    return source


@torch.no_grad()
def _encode(config, dataset) -> Tensor:
    """(n_items, D) float32 vectors of all items, row 0 zeros."""
    spec = BackboneSpec(
        _source(config),
        num_layers=config["item_llm_layers"],
        attn_implementation=config["attn_implementation"],
        trust_remote_code=config["trust_remote_code"],
    )
    catalogue = build_catalogue(config, read_texts(config, dataset))
    encoder = ItemEncoder(
        load_backbone(spec),
        item_emb_token_n=0,
        max_text_length=config["MAX_TEXT_LENGTH"],
        right_aligned_positions="positions" in referenced(config),
    )
    device, dtype = config["device"], AUTOCAST_DTYPES[config["precision"]]
    encoder = encoder.to(device).eval()
    tokens, lengths = (part.to(device) for part in catalogue.lookup(torch.arange(1, catalogue.n_items)))
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        vectors = encode_items(encoder, tokens, lengths, token_budget=config["item_chunk_tokens"])
    return F.pad(vectors.float(), (0, 0, 1, 0))
