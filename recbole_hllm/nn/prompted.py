"""A causal language model over item vectors with words around them: what E4SRec and SLMRec read a history with."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.precision import unrounded
from recbole_hllm.nn.probe import behaviour_of, check_causal
from recbole_hllm.nn.words import drop_input_embeddings, word_embeddings


class PromptedLLM(nn.Module):
    """Reads ``[text before] item vectors [text after]`` (SLMRec, arXiv 2405.17890, section 3.1).

    The rows are padded on the right, the text after follows the last item directly: padding lies in the future of
    all that is read, so that causal attention needs no mask.

    Args:
        backbone: a causal language model without head. Of its word embeddings those of the two texts are kept.
        before, after: token ids of the two texts; empty for none.

    Raises:
        ModelError: a bidirectional backbone, which would see the items it has to predict; or token ids for which it
            has no word embeddings.
    """

    def __init__(self, backbone: PreTrainedModel, before: Sequence[int] = (), after: Sequence[int] = ()):
        super().__init__()
        check_causal(backbone, "read histories here")
        behaviour = behaviour_of(backbone)
        self.before, self.after = (nn.Parameter(_embedded(backbone, text)) for text in (before, after))
        drop_input_embeddings(backbone)
        self.backbone = backbone
        self.input_size, self.output_size = behaviour.input_size, behaviour.output_size
        self.hidden_size, self.depth = backbone.config.hidden_size, backbone.config.num_hidden_layers
        self.n_positions = behaviour.n_positions

    def forward(self, vectors: Tensor, layers: Sequence[int] = ()) -> list[Tensor]:
        """Outputs at every item; only without a text after, which would have to follow each of them.

        Args:
            vectors: (B, S, I) item vectors, ``input_size`` wide, oldest first.
            layers: whose states are wanted beside the final ones: 0 is what the first layer reads, ``depth`` the
                outputs after the final norm.

        Returns:
            (B, S, H) states for each of ``layers``, and last the outputs (B, S, O), ``output_size`` wide, which have
            read the items up to theirs.

        Raises:
            ModelError: more positions than a backbone with a learned position table has.
        """
        vectors = unrounded(vectors, self.backbone)
        before = self.before.expand(len(vectors), -1, -1)
        return [state[:, before.shape[1] :] for state in self._read(torch.cat([before, vectors], 1), layers)]

    def last(self, vectors: Tensor, lengths: Tensor, layers: Sequence[int] = ()) -> list[Tensor]:
        """Outputs where everything has been read: after the text after, or at the last item where there is none.

        Args:
            vectors: (B, S, I) item vectors, padded on the right.
            lengths: (B,) how many of them are real, perhaps 0.
            layers: as in ``forward``.

        Returns:
            (B, H) states for each of ``layers``, and last the outputs (B, O).

        Raises:
            ModelError: as ``forward``.
        """
        vectors, rows = unrounded(vectors, self.backbone), torch.arange(len(vectors), device=vectors.device)
        before, after = (text.expand(len(vectors), -1, -1) for text in (self.before, self.after))
        inputs = torch.cat([before, vectors, torch.zeros_like(after)], 1)
        ends = before.shape[1] + lengths
        if after.shape[1]:
            places = ends[:, None] + torch.arange(after.shape[1], device=vectors.device)
            inputs = inputs.index_put((rows[:, None], places), after)
        last = (ends + after.shape[1] - 1).clamp(min=0)
        return [state[rows, last] for state in self._read(inputs, layers)]

    def _read(self, inputs: Tensor, layers: Sequence[int]) -> list[Tensor]:
        if self.n_positions is not None and inputs.shape[1] > self.n_positions:
            raise ModelError(
                f"{inputs.shape[1]} words and items do not fit into the {self.n_positions} positions of the language "
                "model; shorten MAX_ITEM_LIST_LENGTH or the instruction"
            )
        read = self.backbone(inputs_embeds=inputs, use_cache=False, output_hidden_states=bool(layers))
        states = [*(read.hidden_states or ())[: self.depth], read.last_hidden_state]
        return [states[layer] for layer in layers] + [states[-1]]


def check_words_known(backbone: PreTrainedModel, text: Sequence[int]) -> None:
    """Raises ModelError for token ids that a language model has no word embeddings for."""
    known = word_embeddings(backbone).num_embeddings
    if max(text, default=0) >= known:
        raise ModelError(
            f"the tokenizer has more words than the {known} of the language model; give one whose weights and "
            "tokenizer belong together, without another vocab_size"
        )


def _embedded(backbone: PreTrainedModel, text: Sequence[int]) -> Tensor:
    """(T, H) word embeddings of token ids."""
    check_words_known(backbone, text)
    words = word_embeddings(backbone)
    return words(torch.tensor(text, dtype=torch.long, device=words.weight.device)).detach().clone()
