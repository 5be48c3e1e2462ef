"""Keys of SASRec over vectors of a frozen language model."""

from recbole_hllm.config.keys.baselines import BaselineTrainingKeys, FrozenLLMKeys, SASRecEncoderKeys
from recbole_hllm.config.keys.language_models import EncodingKeys, ItemTextKeys, PackingKeys
from recbole_hllm.config.keys.sequence_encoders import CatalogueLossKeys
from recbole_hllm.config.schema import Scope, Settings, default, key


class TextSASRecKeys(
    FrozenLLMKeys,
    ItemTextKeys,
    SASRecEncoderKeys,
    CatalogueLossKeys,
    BaselineTrainingKeys,
    PackingKeys,
    EncodingKeys,
):
    """Frozen text vectors, an adaptor that is trained, SASRec's encoder."""

    MAX_ITEM_LIST_LENGTH_TEST: int | None = default(
        None,
        "History length in evaluation, at most MAX_ITEM_LIST_LENGTH. Empty: MAX_ITEM_LIST_LENGTH.",
    )


class WhiteningKeys(Settings):
    """Whitening of text vectors."""

    title = "Adaptor"

    whitening_groups: list[int] = key(
        [1],
        "ZCA whitening in so many groups of neighbouring numbers, each alone; 1: of the whole vector. Of several "
        "entries each goes through the same MLP, and the results are added: [1, 4] is WhitenRec+.",
        least=1, filled=True,
    )  # fmt: skip


class WhitenRecKeys(WhiteningKeys, TextSASRecKeys):
    """WhitenRec (arXiv 2402.10602): text vectors of a frozen language model, whitened by ZCA with the catalogue's
    mean and covariance, through an MLP of two layers into SASRec's encoder; every position's target against the whole
    catalogue. Sizes for a CPU
    """


class MixtureKeys(Settings):
    """UniSRec's adaptor."""

    title = "Adaptor"

    n_experts: int = key(8, "Parametric whitenings that are mixed.", least=1)
    adaptor_dropout_prob: float = key(0.2, "Dropout of the text vectors.", scope=Scope.TRAINING, least=0, most=1)
    with_item_ids: bool = key(
        False, "Add a learned vector of the item's id (the paper's transductive setting). False: texts alone."
    )


class UniSRecKeys(MixtureKeys, TextSASRecKeys):
    """UniSRec (arXiv 2206.05941): text vectors of a frozen language model through a mixture of parametric whitenings
    into SASRec's encoder; cosines, every position's target against the whole catalogue. Trained on this data set
    alone, without pre-training on others. Sizes for a CPU. Published: a BERT of 768, hidden_size 300, n_layers 2,
    n_heads 2, both dropouts 0.5, temperature 0.07, train_batch_size 2048
    """

    similarity: str = default("cosine")
    temperature: float | None = default(0.07, "Of the loss. Empty: learned, from 0.07 on.")
