"""User LLM: item vectors of a history -> at each position a prediction of the next item's vector."""

from torch import Tensor, nn
from transformers import PreTrainedModel

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.precision import unrounded
from recbole_hllm.nn.probe import behaviour_of, check_causal
from recbole_hllm.nn.words import drop_input_embeddings


class UserEncoder(nn.Module):
    """A causal language model over item vectors (HLLM, arXiv 2409.12740, section 3.1).

    Args:
        backbone: a causal language model without head. Its word embeddings are never used and are freed.

    Raises:
        ModelError: as ``check_reads_items``.
    """

    def __init__(self, backbone: PreTrainedModel):
        super().__init__()
        check_reads_items(backbone)
        behaviour = behaviour_of(backbone)
        drop_input_embeddings(backbone)
        self.backbone = backbone
        self.hidden_size, self.n_positions = behaviour.output_size, behaviour.n_positions

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


def check_reads_items(backbone: PreTrainedModel) -> None:
    """Whether a language model can predict the next vector of those it reads.

    Raises:
        ModelError: it is bidirectional and would see the items it has to predict, or its outputs have another width
            than what it reads.
    """
    check_causal(backbone, "be the user language model")
    sizes = behaviour_of(backbone)
    if sizes.input_size != sizes.output_size:
        raise ModelError(
            f"a {backbone.config.model_type} model that reads {sizes.input_size} numbers and gives "
            f"{sizes.output_size} cannot be the user language model, which predicts what it reads next; take one "
            "whose word embeddings are as wide as its outputs"
        )
