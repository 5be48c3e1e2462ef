"""SASRec's encoder, for models that differ in what item vectors are, or in the loss."""

from recbole.model.layers import TransformerEncoder
from torch import Tensor, nn

from recbole_hllm.config.keys.baselines import SASRecEncoderKeys
from recbole_hllm.model.base.item_table import INITIAL_STD, check_heads, position_table
from recbole_hllm.model.base.next_item import History, NextItemRecommender
from recbole_hllm.model.base.servable import with_weights
from recbole_hllm.nn.user_models.sequence import SASRecUser


class ReadsAsSASRec(NextItemRecommender):
    """A causal transformer over item vectors of ``hidden_size``, RecBole's SASRec but for the item table.

    A model calls ``build_encoder`` once its item vectors are there.
    """

    settings: SASRecEncoderKeys

    def build_encoder(self) -> None:
        """The encoder, with random weights as RecBole's SASRec draws them.

        Raises:
            ConfigError: sizes that do not fit together.
        """
        settings = self.settings
        check_heads(settings.hidden_size, settings.n_heads)
        self.positions = position_table(settings, settings.hidden_size, INITIAL_STD)
        self.norm = nn.LayerNorm(settings.hidden_size, eps=settings.layer_norm_eps)
        self.dropout = nn.Dropout(settings.hidden_dropout_prob)
        self.encoder = TransformerEncoder(
            n_layers=settings.n_layers,
            n_heads=settings.n_heads,
            hidden_size=settings.hidden_size,
            inner_size=settings.inner_size,
            hidden_dropout_prob=settings.hidden_dropout_prob,
            attn_dropout_prob=settings.attn_dropout_prob,
            hidden_act=settings.hidden_act,
            layer_norm_eps=settings.layer_norm_eps,
        )
        self.encoder.apply(_initialise)

    def read_history(self, vectors: Tensor, history: History) -> Tensor:
        """(B, S, D) item vectors -> (B, S, D) predictions."""
        inputs = self.dropout(self.norm(vectors + self.positions(vectors.shape[1])))
        mask = self.get_attention_mask(history.items)
        return self.encoder(inputs, mask, output_all_encoded_layers=False)[-1]

    def user_model(self) -> SASRecUser:
        """The encoder, which reads histories without RecBole."""
        settings = self.settings
        user_model = SASRecUser(
            settings.hidden_size,
            settings.MAX_ITEM_LIST_LENGTH,
            settings.n_layers,
            settings.n_heads,
            settings.inner_size,
            settings.hidden_act,
            settings.layer_norm_eps,
        )
        return with_weights(user_model, self)


def _initialise(module: nn.Module) -> None:
    """As RecBole's SASRec does; its layer norms start as torch's."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=INITIAL_STD)
        nn.init.zeros_(module.bias)
