"""SASRec-NCE: RecBole's SASRec encoder, trained as HLLM is (the ID baseline of arXiv 2409.12740, section 4.4)."""

from recbole.model.layers import TransformerEncoder
from torch import nn

from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.item_table import INITIAL_STD, ItemTableRecommender, check_heads, position_table

_ACTIVATIONS = ("gelu", "relu", "swish", "tanh", "sigmoid")


class SASRecNCE(ItemTableRecommender):
    """A causal transformer over item vectors; every position of a window is a target of the contrastive loss.

    Beside RecBole's SASRec: all positions instead of one row for each prefix, cosines and sampled negatives instead
    of dot products and the softmax over all items. The encoder is the same.

    Args:
        config: the run's Config; keys are explained in ``properties/model/SASRecNCE.yaml``.
        dataset: the training part of a SequenceDataset.

    Raises:
        ConfigError: sizes that do not fit together, or an unknown ``hidden_act``.
    """

    def __init__(self, config, dataset):
        super().__init__(config, dataset, config["hidden_size"])
        check_heads(config)
        if config["hidden_act"] not in _ACTIVATIONS:
            raise ConfigError(f"hidden_act: {config['hidden_act']!r} is not one of {', '.join(_ACTIVATIONS)}")
        self.positions = position_table(config, INITIAL_STD)
        self.norm = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])
        self.dropout = nn.Dropout(config["hidden_dropout_prob"])
        sizes = ("n_layers", "n_heads", "hidden_size", "inner_size", "hidden_act", "layer_norm_eps")
        dropouts = ("hidden_dropout_prob", "attn_dropout_prob")
        self.encoder = TransformerEncoder(**{key: config[key] for key in sizes + dropouts})
        self.encoder.apply(_initialise)

    def read_history(self, vectors, history):
        """(B, S, D) item vectors -> (B, S, D) predictions."""
        inputs = self.dropout(self.norm(vectors + self.positions(vectors.shape[1])))
        mask = self.get_attention_mask(history.items)
        return self.encoder(inputs, mask, output_all_encoded_layers=False)[-1]


def _initialise(module):
    """As RecBole's SASRec does; its layer norms start as torch's."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=INITIAL_STD)
        nn.init.zeros_(module.bias)
