"""RecBole's autoencoders: each reads a user's row of the catalogue and is trained on one row for each user."""

from typing import Any

from recbole.data.interaction import Interaction
from recbole.model.general_recommender import CDAE as RecBoleCDAE
from recbole.model.general_recommender import MacridVAE as RecBoleMacridVAE
from recbole.model.general_recommender import MultiDAE as RecBoleMultiDAE
from recbole.model.general_recommender import MultiVAE as RecBoleMultiVAE
from recbole.model.general_recommender import RecVAE as RecBoleRecVAE
from torch import Tensor

from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.recbole_models import recbole_values
from recbole_hllm.model.base.user_items import ReadsUserItems, ScoresRowsAlone


class CDAE(ReadsUserItems, RecBoleCDAE):
    """RecBole's CDAE (Wu et al., WSDM 2016): a denoising autoencoder with a vector for each user."""


class MultiDAE(ScoresRowsAlone, RecBoleMultiDAE):
    """RecBole's Mult-DAE (arXiv 1802.05814): a denoising autoencoder with a multinomial likelihood."""


class MultiVAE(ScoresRowsAlone, RecBoleMultiVAE):
    """RecBole's Mult-VAE (arXiv 1802.05814): a variational autoencoder with a multinomial likelihood."""

    COUNTERS = ("update",)  # steps so far, with which the weight of the KL term grows


class MacridVAE(ScoresRowsAlone, RecBoleMacridVAE):
    """RecBole's MacridVAE (arXiv 1910.14238): a variational autoencoder whose latent factors are disentangled."""

    COUNTERS = ("update",)  # as of MultiVAE


class RecVAE(ScoresRowsAlone, RecBoleRecVAE):
    """RecBole's RecVAE (arXiv 1912.11160): encoder and decoder are trained in turn, and after its turn the encoder
    becomes a part of the prior.

    An epoch is one pass over the users, ``n_enc_epochs`` for the encoder, then ``n_dec_epochs`` for the decoder;
    RecBole counts both together as one.

    Args:
        config: the run's Config.
        dataset: the training part of a SequenceDataset.

    Raises:
        ConfigError: one of the two never has its turn.
    """

    COUNTERS = ("of_encoder",)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.turns = recbole_values(config, "n_enc_epochs", "n_dec_epochs")
        if not all(isinstance(turn, int) and turn > 0 for turn in self.turns):
            raise ConfigError(f"n_enc_epochs, n_dec_epochs: {self.turns} must be whole numbers, 1 at least")
        self.of_encoder = True

    def begin_epoch(self, epoch: int) -> None:
        """Whose turn it is; the decoder's begins with a new prior."""
        place = epoch % sum(self.turns)
        self.of_encoder = place < self.turns[0]
        if place == self.turns[0]:
            self.update_prior()

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The negative evidence bound, with gradients for the part whose turn it is.

        Args:
            interaction: names the users (B,).
        """
        self.encoder.requires_grad_(self.of_encoder)
        self.decoder.requires_grad_(not self.of_encoder)
        return super().calculate_loss(interaction, encoder_flag=self.of_encoder)
