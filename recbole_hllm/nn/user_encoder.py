"""User LLM: item vectors of a history -> at each position a prediction of the next item's vector."""

from torch import Tensor, nn
from transformers import PreTrainedModel

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.backbone import drop_input_embeddings, is_bidirectional, position_range
from recbole_hllm.nn.precision import unrounded


class UserEncoder(nn.Module):
    """A causal language model over item vectors (HLLM, arXiv 2409.12740, section 3.1).

    Args:
        backbone: a causal language model without head. Its word embeddings are never used and are freed.

    Raises:
        ModelError: if the backbone is bidirectional, since it would see the items it has to predict.
    """

    def __init__(self, backbone: PreTrainedModel):
        super().__init__()
        if is_bidirectional(backbone):
            raise ModelError(
                f"a {backbone.config.model_type} model cannot be the user language model: it is "
                "bidirectional and would see the items it has to predict; take a causal one, such as llama"
            )
        drop_input_embeddings(backbone)
        self.backbone = backbone
        self.hidden_size = backbone.config.hidden_size
        self.n_positions = position_range(backbone)[1]

    def forward(self, vectors: Tensor) -> Tensor:
        """Reads rows padded on the right, so that causal attention needs no mask: padding lies in the future.

        Args:
            vectors: (B, S, H) item vectors, oldest first.

        Returns:
            (B, S, H) outputs after the final norm; the one at position i predicts item i + 1.

        Raises:
            ModelError: if S is more than the positions of a backbone with a learned position table.
        """
        if self.n_positions is not None and vectors.shape[1] > self.n_positions:
            raise ModelError(
                f"a history of {vectors.shape[1]} items does not fit into the {self.n_positions} positions "
                "of the user language model; shorten MAX_ITEM_LIST_LENGTH"
            )
        return self.backbone(inputs_embeds=unrounded(vectors, self.backbone), use_cache=False).last_hidden_state
