"""Keys of baselines with an encoder of their own over an item table."""

from recbole_hllm.config.keys.baselines import BaselineTrainingKeys
from recbole_hllm.config.keys.next_item import HistoryKeys
from recbole_hllm.config.keys.sasrec_losses import DotLossKeys
from recbole_hllm.config.schema import Scope, Settings, default, key


class LiGRKeys(Settings):
    """LiGR layers."""

    title = "Encoder"

    n_layers: int = default(2, "LiGR layers.")
    n_heads: int = default(2, "Attention heads, a divisor of hidden_size.")
    hidden_size: int = default(64, "Size of item vectors and layers.")
    inner_size: int = default(256, "Inner size of SwiGLU; published: four times hidden_size.")
    hidden_dropout_prob: float = default(0.2, "Dropout of inputs and layers.")
    attn_dropout_prob: float = default(0.2, "Dropout of attention weights.")


class eSASRecKeys(LiGRKeys, DotLossKeys, HistoryKeys, BaselineTrainingKeys):
    """eSASRec (arXiv 2508.06450): every position predicts the next item, LiGR layers, sampled softmax of dot
    products. Sizes for a CPU. Published
    - Amazon Beauty 2014: hidden_size 256, inner_size 1024, n_layers 1, n_heads 1, both dropouts 0.2,
      MAX_ITEM_LIST_LENGTH 50, num_negatives 256, negatives: per_position, train_batch_size 128, learning_rate 1e-3
    - MovieLens-20M: hidden_size 256, inner_size 1024, n_layers 4, n_heads 8, both dropouts 0.2,
      MAX_ITEM_LIST_LENGTH 200, num_negatives 256; also with mixed negatives, which are in_batch_negatives: True here
    """

    MAX_ITEM_LIST_LENGTH_TEST: int | None = default(
        None,
        "History length in evaluation, at most MAX_ITEM_LIST_LENGTH. Empty: MAX_ITEM_LIST_LENGTH.",
    )


class LRUKeys(Settings):
    """LRU blocks."""

    title = "Encoder"

    n_layers: int = default(2, "Blocks.")
    hidden_size: int = default(64, "Size of item vectors and blocks.")
    inner_size: int = default(256, "Inner size of the feed-forward layers; published: four times hidden_size.")
    hidden_dropout_prob: float = default(0.5, "Dropout of inputs and feed-forward layers.")
    recurrent_dropout_prob: float = key(
        0.5, "Dropout of what the recurrence gives.", scope=Scope.TRAINING, least=0, most=1
    )


class CatalogueLossKeys(DotLossKeys):
    """The loss over all items."""

    title = "Loss"

    negatives: str = default("catalogue")


class LRURecKeys(LRUKeys, CatalogueLossKeys, HistoryKeys, BaselineTrainingKeys):
    """LRURec (arXiv 2310.02367): linear recurrent units, every position's target against the whole catalogue, and a
    bias for each item. Sizes for a CPU, which are the published ones but for dropout: there picked from 0.2 to 0.6
    """

    similarity: str = default("dot", "dot: the product, of which each item's bias is a part.", choices=("dot",))


class FilterKeys(Settings):
    """Filter blocks."""

    title = "Encoder"

    n_layers: int = default(2, "Blocks.")
    hidden_size: int = default(64, "Size of item vectors and blocks.")
    inner_size: int = default(256, "Inner size of the feed-forward layers.")
    hidden_dropout_prob: float = default(0.5, "Dropout of inputs and layers.")


class FMLPRecKeys(FilterKeys, BaselineTrainingKeys):
    """FMLP-Rec (arXiv 2202.13556): learned filters over the frequencies of a history, and feed-forward layers, whose
    last place predicts the next item. A filter reads the whole history, so a row is one target; the loss is over the
    whole catalogue (published: one drawn item). Sizes are the published ones
    """

    train_batch_size: int = default(256, "Targets per batch, each with its history.")
