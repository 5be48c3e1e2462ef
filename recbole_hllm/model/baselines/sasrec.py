"""SASRec: RecBole's, whose item table may start from vectors of texts."""

from recbole_hllm.config.keys.item_init import SASRecKeys
from recbole_hllm.model.base.recbole_models import sequential_recommender
from recbole_hllm.model.base.servable import Servable, with_weights
from recbole_hllm.model.baselines.item_init import StartsFromVectors
from recbole_hllm.nn.user_models.sequence import SASRecUser
from recbole_hllm.serving.served import ServedVectors


class SASRec(sequential_recommender.SASRec, StartsFromVectors, Servable):
    """RecBole's SASRec; with ``item_init`` empty it is the same to the last bit.

    Args:
        config: the run's Config; keys beside RecBole's are explained in ``properties/model/SASRec.yaml``.
        dataset: the training part of a SequenceDataset.
    """

    Keys = SASRecKeys
    READS_NUMBERS = True  # as every model of RecBole's

    def served(self) -> ServedVectors:
        """The encoder, and the item table."""
        user_model = SASRecUser(
            self.hidden_size,
            self.max_seq_length,
            self.n_layers,
            self.n_heads,
            self.inner_size,
            self.hidden_act,
            self.layer_norm_eps,
        )
        renamed = {"positions.": "position_embedding.", "norm.": "LayerNorm.", "encoder.": "trm_encoder."}
        with_weights(user_model, self, renamed)
        return ServedVectors(user_model, self.item_embedding.weight, cosine=False, length=self.max_seq_length)
