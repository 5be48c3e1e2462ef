"""HLLMRanker, the discriminative HLLM (arXiv 2409.12740, section 3.3): the probability that a user likes an item."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_hllm.config.keys.hllm import HLLMRankerKeys
from recbole_hllm.data.rows.columns import EVENT_ACTIONS, EVENT_TIME, EVENT_TIMES
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.model.base.contract import LabelledScorer
from recbole_hllm.model.base.next_item import History
from recbole_hllm.model.base.together import new_here, stands_in, weight_of_parts
from recbole_hllm.model.hllm.hllm import HLLM
from recbole_hllm.nn.input_features import id_table
from recbole_hllm.nn.losses import InfoNCEResult
from recbole_hllm.nn.negatives import Negatives
from recbole_hllm.nn.precision import autocast
from recbole_hllm.nn.ranker import RankingHead

_USER_TOKEN_STD = 0.02
_EVENTS = (EVENT_TIMES, EVENT_TIME, EVENT_ACTIONS)


@dataclass(frozen=True)
class Histories:
    """Histories to read, H of them for a batch of B rows.

    Args:
        items: (H, S) ids, padded on the right with 0.
        length: (H,) how many of them are real, from 0 on.
        events: what else is known of each: times (H, S) and that of the request (H,), actions (H, S).
        of_row: (B,) which of them is each row's.
    """

    items: Tensor
    length: Tensor
    events: dict[str, Tensor]
    of_row: Tensor

    @classmethod
    def of_rows(cls, items: Tensor, length: Tensor, events: dict[str, Tensor]) -> "Histories":
        """One for each row."""
        return cls(items, length, events, torch.arange(len(items), device=items.device))

    def table(self, read: Sequence[str], width: int) -> Tensor:
        """(H, ...) all that decides what is computed from a history, padded to ``width`` positions: its items, and
        ``read``, names of events."""
        columns = [self.items, *(self.events[name] for name in read if name in self.events)]
        padded = [F.pad(one, (0, width - one.shape[1])) if one.dim() > 1 else one[:, None] for one in columns]
        return torch.cat([one.double() for one in padded], dim=1)

    def distinct(self, read: Sequence[str]) -> "Histories":
        """Each different one once; rows of one user have the same history until something is added to it.

        Args:
            read: events that decide what is computed from a history, beside its items.
        """
        which = torch.unique(self.table(read, self.items.shape[1]), dim=0, return_inverse=True)[1]
        number = torch.arange(len(which), device=which.device)
        first = torch.full_like(which, len(which)).scatter_reduce(0, which, number, "amin")[: int(which.max()) + 1]
        events = {name: values[first] for name, values in self.events.items()}
        return Histories(self.items[first], self.length[first], events, which[self.of_row])


class HLLMRanker(HLLM, LabelledScorer):
    """HLLM with a head, trained on labelled interactions by ``L_cls + lambda * L_gen``.

    Early fusion reads the history with the candidate after it and scores the hidden state there. Late fusion reads
    the history with a learned [USER] vector after it; a head scores that hidden state, which no candidate changes,
    with the candidate's vector. L_cls is the binary cross-entropy, L_gen the loss of HLLM at the history's positions.

    Args:
        config: the run's Config; keys are explained in ``properties/model/HLLMRanker.yaml`` and ``HLLM.yaml``.
        dataset: the training part of a LabelledDataset.
        item_texts, weights: as for HLLM.
    """

    Keys: ClassVar[type[HLLMRankerKeys]] = HLLMRankerKeys
    settings: HLLMRankerKeys
    similarity = "other"  # the head's
    FURTHER_VECTORS = 1  # [USER], or the candidate

    @property
    def late(self) -> bool:
        """Whether the history is read without the candidate."""
        return self.settings.fusion == "late"

    def add_parts(self, dataset: Any) -> None:
        """Also the head and the [USER] vector."""
        super().add_parts(dataset)
        settings, width = self.settings, self.user_encoder.hidden_size
        self.head = RankingHead(width, settings.head_hidden, settings.head_input if self.late else None)
        self.user_token = nn.Parameter(torch.randn(width) * _USER_TOKEN_STD) if self.late else None
        self.target_ids = id_table(dataset.item_num, width) if settings.target_item_id else None

    @classmethod
    def check_keys(cls, config: Any) -> None:
        """Also those of the ranker itself."""
        settings = cls.Keys.of(config)
        if settings.negatives != "shared":
            raise ConfigError(f"negatives: {settings.negatives!r}: those of the generative loss are shared by a batch")
        super().check_keys(config)

    # ---- what is computed ----

    def _histories(self, rows: Interaction | Mapping[str, Tensor]) -> Histories:
        """Cut to the longest, at least 1; those that late fusion reads alike, once."""
        length = rows[self.ITEM_SEQ_LEN]
        width = max(int(length.max()), 1)
        items = rows[self.ITEM_SEQ][:, :width]
        events = {name: rows[name] for name in _EVENTS if name in rows}
        events = {name: values[:, :width] if values.dim() > 1 else values for name, values in events.items()}
        histories = Histories.of_rows(items, length, events)
        return histories.distinct(self._events_read()) if self.late else histories

    def _events_read(self) -> tuple[str, ...]:
        times = () if self.input_features.time is None else (EVENT_TIMES, EVENT_TIME)
        return (*times, *(() if self.input_features.action is None else (EVENT_ACTIONS,)))

    def _counted(self, histories: Histories, rows: Interaction) -> Tensor:
        """(H,) which histories are this process's in the generative loss, where late fusion counts each once."""
        number = 0 if stands_in(rows) else len(histories.items)
        counted = torch.ones(number, dtype=torch.bool, device=histories.items.device)
        if self.late:
            counted = new_here(histories.table(self._events_read(), rows[self.ITEM_SEQ].shape[1])[:number])
        return F.pad(counted, (0, len(histories.items) - number))

    def _as_targets(self, ids: Tensor, vectors: Tensor) -> Tensor:
        """(N,) ids and (N, D) vectors of items -> (N, D) what is known of them as candidates."""
        return vectors if self.target_ids is None else vectors + self.target_ids(ids)

    def _read(
        self, histories: Histories, vectors: Tensor, candidates: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Reads histories with [USER] or, in early fusion, the candidate after them.

        Args:
            histories: H of them.
            vectors: (H, S, D) of their items.
            candidates: (H,) ids of early fusion's candidates; ``targets`` (H, D) are their vectors.

        Returns:
            (H, S + 1, D) outputs and (H, D), each history's last one.
        """
        items, length, events = histories.items, histories.length, histories.events
        last = torch.zeros_like(length) if self.late else candidates
        added = targets if self.user_token is None else self.user_token.expand(len(items), -1)
        times, next_times, actions = None, None, None
        if EVENT_TIMES in events:
            times = _append(events[EVENT_TIMES], length, events[EVENT_TIME])
            # The row's last place has nothing after it: its time is that of the request too.
            next_times = _append(times[:, 1:], length, events[EVENT_TIME])
        if EVENT_ACTIONS in events:  # what the user will do with the candidate is not known
            actions = F.pad(events[EVENT_ACTIONS], (0, 1))
        history = History(_append(items, length, last), times, next_times, actions)
        outputs = self.read_history(_append(vectors, length, added), history)
        return outputs, self.gather_indexes(outputs, length)

    def _logits(self, state: Tensor, targets: Tensor) -> Tensor:
        """(..., D) hidden states and candidates -> (...) logits; early fusion has seen the candidate before."""
        return self.head(state, targets) if self.late else self.head(state)

    # ---- training ----

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """``L_cls + loss_lambda * L_gen``; each distinct item of the batch is encoded once.

        Args:
            interaction: ``item_id_list`` (B, L) padded on the right with 0, ``item_length`` (B,) from 0 on,
                ``item_id`` and ``label`` (B,); ``neg_item_id`` (1, K) where ``loss_lambda`` is not 0.

        Returns:
            Scalar loss; ``loss_terms`` holds its parts.
        """
        histories, candidates = self._histories(interaction), interaction[self.ITEM_ID]
        items, labels, weight = histories.items, interaction[self.settings.LABEL_FIELD], self.settings.loss_lambda
        negatives = interaction[self.NEG_ITEM_ID].reshape(-1) if weight else candidates[:0]
        self.check_drawn(negatives, negatives)
        vectors = self.vectors_of(torch.cat([items.reshape(-1), candidates, negatives]))
        sequence, candidate, negative = vectors.split([items.numel(), len(candidates), len(negatives)])
        sequence, targets = sequence.view(*items.shape, -1), self._as_targets(candidates, candidate)
        outputs, states = self._read(histories, sequence, candidates, targets)
        logits = self._logits(states[histories.of_row], targets).float()
        loss = F.binary_cross_entropy_with_logits(logits, labels.float())
        terms = {"classification_loss": loss.detach()}
        self.loss_terms = {}
        if weight:
            generative = self._generative(interaction, histories, outputs, sequence, Negatives(negatives, negative))
            terms["generative_loss"] = generative.loss.detach()
            loss = loss + weight * generative.loss
        self.loss_terms |= terms
        return loss

    def _generative(
        self, rows: Interaction, histories: Histories, outputs: Tensor, sequence: Tensor, negatives: Negatives
    ) -> InfoNCEResult:
        """InfoNCE of every item of the histories after the first, from the output before it; weighed so that processes,
        of which each counts for its rows, have the mean over all these items."""
        items = histories.items
        wanted = items[:, 1:] * self._counted(histories, rows)[:, None]
        real = wanted.nonzero(as_tuple=True)  # see NextItemRecommender
        predicted, targets = outputs[:, : wanted.shape[1]][real], sequence[:, 1:][real]
        result = self.contrast(predicted, targets, wanted[real], negatives, items)
        weight = weight_of_parts(len(targets), 0 if stands_in(rows) else len(rows))
        if weight is None:
            return result
        result = result.times(weight)
        self.report(result)
        return result

    # ---- scores ----

    def user_vectors(self, interaction: Interaction) -> Tensor:
        """(B, D) hidden states at [USER], whatever the candidate.

        Raises:
            ModelError: early fusion, whose states belong to a user and a candidate.
        """
        if not self.late:
            raise ModelError("fusion: early reads each candidate with the history; only late fusion has user vectors")
        return self._states(interaction, interaction[self.ITEM_ID])

    def candidate_vectors(self) -> Tensor:
        """(n_items, D) vectors of all items as late fusion's head reads them; the first is the padding item's."""
        table = self.item_vectors()
        return self._as_targets(torch.arange(self.n_items, device=table.device), table)

    def _states(self, rows: Interaction | Mapping[str, Tensor], candidates: Tensor) -> Tensor:
        histories, table = self._histories(rows), self.item_vectors()
        targets = self._as_targets(candidates, table[candidates])
        with autocast(table.device, self.autocast_dtype):
            states = self._read(histories, table[histories.items], candidates, targets)[1]
        return states.float()[histories.of_row]

    def predict(self, interaction: Interaction) -> Tensor:
        """(B,) probability of label 1 for each row's item."""
        candidates = interaction[self.ITEM_ID]
        states = self._states(interaction, candidates)
        return self._logits(states, self._as_targets(candidates, self.item_vectors()[candidates])).sigmoid()

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """(B, n_items) probability of label 1 for every item: late fusion reads each history once."""
        states = self.user_vectors(interaction)[:, None] if self.late else None
        table, at_once = self.item_vectors(), max(1, self.settings.candidates_per_batch // len(interaction))
        parts = []
        for ids in torch.arange(self.n_items, device=table.device).split(at_once):
            of_items = self._states_of_pairs(interaction, ids) if states is None else states
            parts.append(self._logits(of_items, self._as_targets(ids, table[ids])))
        return torch.cat(parts, dim=1).sigmoid()

    def _states_of_pairs(self, interaction: Interaction, ids: Tensor) -> Tensor:
        """(B, N, D) hidden states of each row with each of N candidates."""
        rows = {name: values.repeat_interleave(len(ids), dim=0) for name, values in interaction.interaction.items()}
        return self._states(rows, ids.repeat(len(interaction))).view(len(interaction), len(ids), -1)


def _append(values: Tensor, length: Tensor, last: Tensor) -> Tensor:
    """(B, S, ...) rows and (B, ...) what comes after the first ``length`` of each -> (B, S + 1, ...)."""
    longer = torch.cat([values, torch.zeros_like(values[:, :1])], dim=1)
    longer[torch.arange(len(length), device=length.device), length] = last.to(longer.dtype)
    return longer
