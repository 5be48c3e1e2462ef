"""SLMRec (arXiv 2405.17890): the first layers of an E4SRec, taught block by block by all of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_hllm.config.keys.slmrec import SLMRecKeys
from recbole_hllm.data.protocol import referenced
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.base.trained_run import settings_of
from recbole_hllm.model.base.unread_keys import tell_unread
from recbole_hllm.model.slmrec.e4srec import E4SRec
from recbole_hllm.model.slmrec.teacher import (
    CachedStates,
    FreshStates,
    UnknownStates,
    ends_of,
    keys_of_teacher,
    read_teacher,
    teacher_config,
)
from recbole_hllm.model.slmrec.teacher_fit import check_keys_fit, check_models_fit
from recbole_hllm.nn.distillation import direction_loss, norm_loss

# Behaviours of its published code.
_OF_DISTILLATION = {"distillation_sum", "distillation_norm"}
# So many times the cross-entropy is worth a warning.
_FAR_MORE = 10
# Parts of the loss that only training needs.
_AUXILIARY = ("heads.", "teacher.")


class SLMRec(E4SRec):
    """A student with the teacher's first ``user_llm_layers`` layers, its table and its projections.

    Loss (equation 9): L_ce + distill_cos (1 - D_cos) + distill_norm D_norm + distill_heads L_ms, where block k of the
    student ends n k / B layers up and that of the teacher m k / B, and L_ms is the cross-entropy of a head of its own
    on each block but the last. ``offline``: the teacher is a finished run of E4SRec and stays as it is. ``online``:
    both are trained together, the teacher by its own cross-entropy too.

    Args:
        config: the run's Config; keys are explained in ``properties/model/SLMRec.yaml``.
        dataset: the training part of a SequenceDataset.
        weights: whether those of the teacher are read.

    Raises:
        ConfigError, ModelError: teacher and student do not fit together.
    """

    Keys: ClassVar[type[SLMRecKeys]] = SLMRecKeys
    settings: SLMRecKeys
    COUNTERS = ("balance_told",)
    NUMBERED_ROWS = True  # the teacher's states are stored by row

    def __init__(self, config: Any, dataset: Any, weights: Weights = Weights.FRESH) -> None:
        self.check_keys(config)
        teacher = _teacher_to_start_from(config, dataset) if weights.are_read else None
        table = None if teacher is None else teacher.item_table.weight.detach()
        super().__init__(config, dataset, table, weights)
        settings = self.settings
        self.term_weights = loss_weights(settings)
        published = referenced(settings.reference)
        self.reduction = "sum" if "distillation_sum" in published else "mean"
        self.norm_power = 1 if "distillation_norm" in published else 2
        in_blocks = any(self.term_weights.values())
        self.ends = ends_of(self.llm.depth, settings.blocks, "this student's") if in_blocks else ()
        width = settings.item_embed_dim
        heads = self.ends[:-1] if self.term_weights["heads"] else ()
        self.heads = nn.ModuleList(nn.Linear(self.llm.hidden_size, width, bias=False) for _ in heads)
        self.online = settings.distillation == "online" and self.aligned
        self.states: Any = None  # FreshStates, or those of a teacher that is not read again
        self.balance_told = False
        parts = " + ".join(f"{weight:g} {name}" for name, weight in self.term_weights.items() if weight)
        self.logger.info(f"distillation: {settings.distillation}, {parts or 'nothing but the first weights'}")
        if settings.distillation == "online":
            tell_unread(self.logger, settings, ["teacher_cache"], "distillation is online")
        if self.online:
            self.teacher = E4SRec(teacher_config(config), dataset, self.item_table.weight.detach(), weights)
            self._begin_as(self.teacher)
            self.states = FreshStates(self.teacher, settings.blocks)
        elif teacher is not None:
            self._begin_as(teacher)
            if self.aligned:
                self.states = self._states_of(teacher, dataset)
        elif weights is Weights.STAND_IN and self.aligned:
            self.states = self._states_to_plan_with(config, dataset)

    @property
    def aligned(self) -> bool:
        """Whether anything of the teacher's states is in the loss."""
        return _taught(self.term_weights)

    @classmethod
    def check_keys(cls, config: Any) -> None:
        """Raises ConfigError for values that are wrong whatever the data and the weights are."""
        settings = cls.Keys.of(config)
        if settings.pretrained_e4srec:
            raise ConfigError(
                "pretrained_e4srec: a student begins as the first layers of its teacher; leave it empty, or go on with "
                "an exported student as --model=E4SRec"
            )
        super().check_keys(config)
        online, weights = settings.distillation == "online", loss_weights(settings)
        if online and settings.teacher:
            raise ConfigError(
                "teacher: with distillation: online the teacher is trained beside the student; leave it empty"
            )
        if online and not _taught(weights):
            raise ConfigError(
                "distillation: online needs distill_cos or distill_norm above 0, or there is nothing to learn from"
            )
        check_keys_fit(config, any(weights.values()), _taught(weights))

    @classmethod
    def check_row(cls, config: Any, key: str, row: Any) -> None:
        """Raises ConfigError where a row of the same table, that ``key`` names, could not be what it is for.

        Args:
            row: its Config.
        """
        super().check_row(config, key, row)
        if key == "teacher":
            weights = loss_weights(cls.Keys.of(config))
            check_keys_fit(config, any(weights.values()), _taught(weights), row)

    @classmethod
    def needs(cls, config: Any) -> dict[str, tuple[str, dict[str, Any]]]:
        """Offline a trained teacher, which has the table; online the table."""
        settings = cls.Keys.of(config)
        if settings.distillation == "online":
            return super().needs(config)
        published = referenced(settings.reference)
        of_teacher = sorted(published - _OF_DISTILLATION)  # what it would share with this model
        shared = {} if not published & _OF_DISTILLATION else {"reference": of_teacher or False}
        return {"teacher": ("E4SRec", {**shared, **keys_of_teacher(settings)})}

    def _begin_as(self, teacher: E4SRec) -> None:
        """The weights of the teacher's first layers, and of all that lies around them.

        Raises:
            ModelError: the two are not made alike.
        """
        check_models_fit(self, teacher)
        own, theirs = self.state_dict(), teacher.state_dict()
        shared = [name for name in own if not name.startswith(_AUXILIARY)]
        unlike = [name for name in shared if name not in theirs or theirs[name].shape != own[name].shape]
        if unlike:
            raise ModelError(
                f"teacher: this student is not made as its teacher ({', '.join(unlike[:3])}): give it the same "
                "language model, instruction, item_embed_dim and LoRA keys, and at most as many layers"
            )
        self.load_state_dict({**own, **{name: theirs[name] for name in shared}})
        given, read = self.settings.user_pretrain_dir, teacher.settings.user_pretrain_dir
        if given and read and given != read:
            self.logger.warning(
                f"user_pretrain_dir: the weights of {given} have no effect: the student begins as the layers of its "
                f"teacher, which was made from {read}"
            )

    def _states_of(self, teacher: E4SRec, dataset: Any) -> Any:
        """The teacher's states, kept on the disk unless that is not wanted."""
        settings = self.settings
        teacher.to(settings.device)
        if settings.teacher_cache:
            return CachedStates.of(teacher, settings, dataset)
        return FreshStates(teacher.requires_grad_(False), settings.blocks, frozen=True)

    def _states_to_plan_with(self, config: Any, dataset: Any) -> Any:
        """What takes the time of the teacher's states, without its weights."""
        settings = self.settings
        if settings.teacher_cache:
            return UnknownStates(self, settings.blocks)
        folder = Path(settings.teacher or "").expanduser()
        made = settings_of(folder, "teacher", ["E4SRec"], dataset) if (folder / "costs.json").is_file() else None
        teacher = E4SRec(teacher_config(config, made), dataset, weights=Weights.STAND_IN).to(settings.device)
        return FreshStates(teacher.requires_grad_(False), settings.blocks, frozen=True)

    # ---- training ----

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The loss above, averaged over targets; ``loss_terms`` has its parts.

        Raises:
            ModelError: the teacher is needed and was not loaded with this model.
        """
        states, targets, order = self.read_rows(interaction, self.ends)
        outputs, weights = states[-1], self.term_weights
        terms = {"ce": self.target_loss(outputs, targets)}
        if self.aligned:
            if self.states is None:
                raise ModelError("this SLMRec was read for evaluation, without its teacher; train it with run()")
            taught = self.states(interaction, order)
            students = states[: len(self.ends)]
            terms["cos"] = direction_loss(students, taught, self.reduction)
            terms["norm"] = norm_loss(students, taught, self.reduction, self.norm_power)
        if self.heads:
            losses = [self.target_loss(state, targets, head) for state, head in zip(states, self.heads, strict=False)]
            terms["heads"] = torch.stack(losses).sum() if self.reduction == "sum" else torch.stack(losses).mean()
        loss = terms["ce"] + sum(weights[name] * terms[name] for name in weights if name in terms and weights[name])
        if self.online:
            terms["teacher_ce"] = self.teacher.target_loss(self.states.outputs, self.states.targets)
            loss = loss + terms["teacher_ce"]
        self.loss_terms = {name: value.detach() for name, value in terms.items()}
        return loss

    def modules_beside(self) -> Sequence[nn.Module]:
        """A teacher that reads every batch again; one that is trained beside it is a child."""
        return [self.states.teacher] if isinstance(self.states, FreshStates) and not self.online else []

    def scoring_flops(self, rows: Interaction) -> float:
        """Its own logits, those of the further heads, and those of a teacher that is trained beside it."""
        return super().scoring_flops(rows) * (1 + len(self.heads) + self.online)

    def watch(self, terms: Mapping[str, float]) -> None:
        """Warns once where the distance of states, which are long in pretrained language models, is all of the loss.

        Args:
            terms: ``loss_terms`` of a training batch as plain numbers.
        """
        weight, ce = self.term_weights["norm"], terms["ce"]
        distance = weight * terms.get("norm", 0.0)
        if not self.balance_told and 0 < _FAR_MORE * ce < distance:  # 0: a catalogue of one item
            self.balance_told = True
            self.logger.warning(
                f"distill_norm: {weight:g} makes the distance of states {distance / ce:.0f} times the cross-entropy, "
                f"so little else is learned; {weight * ce / distance:.0e} would make it as large"
            )

    # ---- for other programs ----

    def inference_parameters(self) -> int:
        """How many numbers are needed to recommend: no teacher, no heads of blocks, LoRA merged."""
        kept = (w for name, w in self.named_parameters() if not name.startswith(_AUXILIARY) and ".lora_" not in name)
        return sum(weight.numel() for weight in kept)


def loss_weights(settings: SLMRecKeys) -> dict[str, float]:
    """Term of the loss, beside the cross-entropy -> its weight; 0 where it is not in the loss."""
    return {"cos": settings.distill_cos, "norm": settings.distill_norm, "heads": settings.distill_heads}


def _taught(weights: Mapping[str, float]) -> bool:
    """Whether anything of the teacher's states is in the loss."""
    return bool(weights["cos"] or weights["norm"])


def _teacher_to_start_from(config: Any, dataset: Any) -> E4SRec | None:
    """The trained teacher, of a finished run; None where there is none."""
    settings = SLMRecKeys.of(config)
    wanted = settings.distillation != "online" and settings.teacher
    return read_teacher(config, dataset) if wanted else None
