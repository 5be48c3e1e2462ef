"""HLLMRanker, the discriminative HLLM (arXiv 2409.12740, section 3.3): the probability that a user likes an item."""

import torch
import torch.nn.functional as F
from recbole.data.dataset.dataset import Dataset
from torch import Tensor, nn

from recbole_hllm.data.dataset import EVENT_ACTIONS, EVENT_TIME, EVENT_TIMES
from recbole_hllm.data.texts import ItemTexts
from recbole_hllm.errors import ConfigError, ModelError, did_you_mean
from recbole_hllm.model.hllm import HLLM
from recbole_hllm.model.next_item import History
from recbole_hllm.nn.losses import InfoNCEResult, clamp_logit_scale, info_nce
from recbole_hllm.nn.ranker import HEAD_INPUTS, RankingHead

FUSIONS = ("late", "early")
_USER_TOKEN_STD = 0.02


class HLLMRanker(HLLM):
    """HLLM with a head, trained on labelled interactions by ``L_cls + lambda * L_gen``.

    Early fusion reads the history with the candidate behind it and scores the hidden state there. Late fusion reads
    the history with a learned [USER] vector behind it; a head scores that hidden state, which no candidate changes,
    with the candidate's vector. L_cls is the binary cross-entropy, L_gen the loss of HLLM at the history's positions.

    Args:
        config: the run's Config; keys are explained in ``properties/model/HLLMRanker.yaml`` and ``HLLM.yaml``.
        dataset: the training part of a LabelledDataset.
        item_texts: as for HLLM.

    Raises:
        ConfigError: an unknown ``fusion`` or ``head_input``, or hidden sizes that are no whole numbers.
    """

    def __init__(self, config, dataset: Dataset, item_texts: ItemTexts | None = None):
        self._check(config)
        self.late, self.loss_lambda = config["fusion"] == "late", config["loss_lambda"]
        self.pairs_at_once, self.label_field = config["candidates_per_batch"], config["LABEL_FIELD"]
        super().__init__(config, dataset, item_texts)

    def add_parts(self, config, dataset):
        """Also the head and the [USER] vector."""
        super().add_parts(config, dataset)
        width = self.user_encoder.hidden_size
        self.head = RankingHead(width, config["head_hidden"], config["head_input"] if self.late else None)
        self.user_token = nn.Parameter(torch.randn(width) * _USER_TOKEN_STD) if self.late else None

    @staticmethod
    def _check(config):
        for key, known in (("fusion", FUSIONS), ("head_input", HEAD_INPUTS)):
            if config[key] not in known:
                hint = did_you_mean(str(config[key]), known)
                raise ConfigError(f"{key}: {config[key]!r} is not one of {', '.join(known)}{hint}")
        if config["negatives"] != "shared":
            raise ConfigError(f"negatives: {config['negatives']!r}: those of the generative loss are shared by a batch")
        sizes = config["head_hidden"]
        if not isinstance(sizes, list) or not all(type(size) is int and size > 0 for size in sizes):
            raise ConfigError(f"head_hidden: {sizes!r} is not a list of layer sizes such as [128]")

    # ---- what is computed ----

    def _read(self, items: Tensor, vectors: Tensor, length: Tensor, candidates: Tensor, candidate_vectors, rows):
        """Reads histories with the candidate or [USER] behind them.

        Args:
            items: (B, S) ids of the history, padded on the right with 0; ``vectors`` (B, S, D) are theirs.
            length: (B,) how many of them are real.
            candidates: (B,) ids; ``candidate_vectors`` (B, D) are theirs.
            rows: what else is known of each row: times and actions.

        Returns:
            (B, S + 1, D) outputs and (B, D), each row's last one.
        """
        last = torch.zeros_like(candidates) if self.late else candidates
        added = self.user_token.expand(len(items), -1) if self.late else candidate_vectors
        times, next_times, actions = None, None, None
        if EVENT_TIMES in rows:
            times = _behind(rows[EVENT_TIMES][:, : items.shape[1]], length, rows[EVENT_TIME])
            # The row's last place has nothing behind it: its time is that of the request too.
            next_times = _behind(times[:, 1:], length, rows[EVENT_TIME])
        if EVENT_ACTIONS in rows:  # what the user will do with the candidate is not known
            actions = F.pad(rows[EVENT_ACTIONS][:, : items.shape[1]], (0, 1))
        history = History(_behind(items, length, last), times, next_times, actions)
        outputs = self.read_history(_behind(vectors, length, added), history)
        return outputs, self.gather_indexes(outputs, length)

    def _logits(self, state: Tensor, candidate_vectors: Tensor) -> Tensor:
        """(..., D) hidden states and candidates -> (...) logits; early fusion has seen the candidate before."""
        return self.head(state, candidate_vectors) if self.late else self.head(state)

    def _history_of(self, interaction):
        """(B, S) items of the longest history's length, at least 1, and (B,) lengths."""
        length = interaction[self.ITEM_SEQ_LEN]
        return interaction[self.ITEM_SEQ][:, : max(int(length.max()), 1)], length

    # ---- training ----

    def calculate_loss(self, interaction):
        """``L_cls + loss_lambda * L_gen``; each distinct item of the batch is encoded once.

        Args:
            interaction: ``item_id_list`` (B, L) padded on the right with 0, ``item_length`` (B,) from 0 on,
                ``item_id`` and ``label`` (B,); ``neg_item_id`` (1, K) where ``loss_lambda`` is not 0.

        Returns:
            Scalar loss; ``loss_terms`` holds its parts.

        Raises:
            ModelError: almost no negative has been left for many batches in a row.
        """
        items, length = self._history_of(interaction)
        candidates, labels = interaction[self.ITEM_ID], interaction[self.label_field]
        negatives = interaction[self.NEG_ITEM_ID].reshape(-1) if self.loss_lambda else candidates[:0]
        vectors = self.vectors_of(torch.cat([items.reshape(-1), candidates, negatives]))
        sequence, candidate, negative = vectors.split([items.numel(), len(candidates), len(negatives)])
        sequence = sequence.view(*items.shape, -1)
        outputs, state = self._read(items, sequence, length, candidates, candidate, interaction)
        loss = F.binary_cross_entropy_with_logits(self._logits(state, candidate).float(), labels.float())
        terms = {"classification_loss": loss.item()}
        self.loss_terms = {}
        if self.loss_lambda:
            generative = self._generative(outputs, items, sequence, negative, negatives)
            terms["generative_loss"] = generative.loss.item()
            loss = loss + self.loss_lambda * generative.loss
        self.loss_terms |= terms
        return loss

    def _generative(self, outputs, items, sequence, negative, negatives) -> InfoNCEResult:
        """InfoNCE of every item of a history after the first, from the output before it."""
        real = items[:, 1:] != 0
        result = info_nce(
            outputs[:, : items.shape[1] - 1][real],
            sequence[:, 1:][real],
            negative,
            items[:, 1:][real],
            negatives,
            clamp_logit_scale(self.logit_scale),
            self.nce_thres,
        )
        if real.any():
            self.report(result)
        return result

    # ---- scores ----

    def user_vectors(self, interaction) -> Tensor:
        """(B, D) hidden states at [USER], whatever the candidate.

        Raises:
            ModelError: early fusion, whose states belong to a user and a candidate.
        """
        if not self.late:
            raise ModelError("fusion: early reads each candidate with the history; only late fusion has user vectors")
        return self._states(interaction, interaction[self.ITEM_ID]).float()

    def _states(self, rows, candidates):
        items, length = self._history_of(rows)
        table = self.item_vectors()
        return self._read(items, table[items], length, candidates, table[candidates], rows)[1]

    def predict(self, interaction) -> Tensor:
        """(B,) probability of label 1 for each row's item."""
        candidates = interaction[self.ITEM_ID]
        states = self._states(interaction, candidates).float()
        return self._logits(states, self.item_vectors()[candidates]).sigmoid()

    def full_sort_predict(self, interaction) -> Tensor:
        """(B, n_items) probability of label 1 for every item: late fusion reads each history once."""
        states = self.user_vectors(interaction)[:, None] if self.late else None
        table, n_rows = self.item_vectors(), len(interaction)
        parts = []
        for ids in torch.arange(self.n_items, device=table.device).split(max(1, self.pairs_at_once // n_rows)):
            of_items = states if self.late else self._states_of_pairs(interaction, ids)
            parts.append(self._logits(of_items, table[ids]))
        return torch.cat(parts, dim=1).sigmoid()

    def _states_of_pairs(self, interaction, ids):
        """(B, N, D) hidden states of each row with each of N candidates."""
        rows = {
            name: values.repeat_interleave(len(ids), dim=0) for name, values in interaction.interaction.items()
        }
        return self._states(rows, ids.repeat(len(interaction))).float().view(len(interaction), len(ids), -1)


def _behind(values: Tensor, length: Tensor, last: Tensor) -> Tensor:
    """(B, S, ...) rows and (B, ...) what comes behind the first ``length`` of each -> (B, S + 1, ...)."""
    longer = torch.cat([values, torch.zeros_like(values[:, :1])], dim=1)
    longer[torch.arange(len(length), device=length.device), length] = last.to(longer.dtype)
    return longer
