"""Whether a student can begin as the first layers of its teacher: by their keys, before one is trained; as models."""

from collections.abc import Mapping
from typing import Any

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.config.keys.slmrec import E4SRecKeys, SLMRecKeys
from recbole_hllm.errors import ConfigError, ModelError, did_you_mean, naming
from recbole_hllm.model.base.language_models import lora_settings
from recbole_hllm.model.base.trained_run import check_same_data, over_default
from recbole_hllm.model.slmrec.e4srec import E4SRec
from recbole_hllm.model.slmrec.e4srec_keys import llm_spec, tuning_mode
from recbole_hllm.model.slmrec.teacher import MADE_OF, computed_by, ends_of, teacher_config
from recbole_hllm.nn.backbone import config_of, skeleton_of
from recbole_hllm.nn.probe import behaviour_of


def check_keys_fit(config: Any, in_blocks: bool, taught: bool, row: Any = None) -> None:
    """What would otherwise be refused only after a teacher was trained.

    Args:
        config: of the student.
        row: config of the teacher that is to be trained, as a row of the same table; None: the one of ``teacher_keys``,
            where no teacher is named.
        in_blocks: the student's layers are compared block by block, with those of its teacher or by heads.
        taught: with those of its teacher.

    Raises:
        ConfigError, ModelError: the student cannot be cut into blocks; or the teacher to be trained cannot, or cannot
            be this student's.
    """
    settings = SLMRecKeys.of(config)
    own = config_of(llm_spec(settings))
    if in_blocks:
        _check_width(llm_spec(settings))
        ends_of(own.num_hidden_layers, settings.blocks, "this student's (user_llm_layers)")
    if row is None and settings.teacher:
        return
    if row is None:
        _check_names(config, settings)
    named = "teacher_keys" if row is None else RunKeys.of(row).model
    with naming(named):
        made = E4SRecKeys.of(teacher_config(config, None if row is None else row.settings))
        theirs, lora = config_of(llm_spec(made)), tuning_mode(made) == "lora"
    if taught:
        ends_of(theirs.num_hidden_layers, settings.blocks, f"the teacher's ({named}: user_llm_layers)")
    depths = own.num_hidden_layers, theirs.num_hidden_layers
    if depths[0] > depths[1]:
        raise ConfigError(
            f"user_llm_layers: a student of {depths[0]} layers has none of {depths[1]} to begin as; give fewer"
        )
    unlike = _unlike(settings, made, tuning_mode(settings) == "lora", lora) or _apart(
        computed_by(own, None), computed_by(theirs, None)
    )
    if unlike:
        raise ConfigError(
            f"{named}: the teacher's {', '.join(unlike)} would differ from this student's, which begins as its "
            "first layers; they may differ in depth, in dropout and in how they are trained"
        )


def _check_width(spec: Any) -> None:
    skeleton = skeleton_of(spec)
    if skeleton is not None and (width := behaviour_of(skeleton).output_size) != skeleton.config.hidden_size:
        raise ConfigError(
            f"distill_cos, distill_norm: the layers of a {skeleton.config.model_type} model with outputs of {width} "
            f"numbers and hidden_size {skeleton.config.hidden_size} cannot be compared block by block; take another "
            "language model, or 0 for these keys"
        )


def _check_names(config: Any, settings: SLMRecKeys) -> None:
    keys = over_default(settings, "teacher_keys")
    known = config.internal_config_dict.keys() - (SLMRecKeys.keys.keys() - E4SRecKeys.keys.keys())
    check_same_data(settings, "teacher_keys", keys)
    for key in keys:
        if key not in known:
            raise ConfigError(f"teacher_keys: unknown key '{key}' of E4SRec{did_you_mean(str(key), known)}")
        if settings.distillation == "online" and key not in MADE_OF:
            raise ConfigError(
                f"teacher_keys: {key}: beside an online student the teacher differs in {', '.join(MADE_OF)} only"
            )


def check_models_fit(student: E4SRec, teacher: E4SRec) -> None:
    """Raises ModelError where the same weights would compute something else in the two; shapes say nothing of it."""
    parts = [computed_by(model.llm.backbone.config, model.lora_alpha) for model in (student, teacher)]
    words = [model.settings.instruction or "" for model in (student, teacher)]
    unlike = _apart(*parts)
    if words[0] != words[1] and not teacher.settings.pretrained_e4srec:  # an export has numbers for words
        unlike.append("instruction")
    if unlike:
        raise ModelError(
            f"teacher: its {', '.join(unlike)} differ from this student's: the same weights would compute "
            "something else; give the student the teacher's"
        )


def _unlike(settings: SLMRecKeys, made: E4SRecKeys, own_lora: bool, their_lora: bool) -> list[str]:
    """Keys whose values have to be the same, and are not."""
    if own_lora != their_lora:
        return ["user_llm_tuning"]
    keys = ["item_embed_dim"] if made.pretrained_e4srec else ["item_embed_dim", "instruction"]
    if own_lora:
        lora_settings(made)
        keys += ["lora_r", "lora_alpha", "lora_target_modules"]
    return [key for key in keys if (getattr(settings, key) or None) != (getattr(made, key) or None)]


def _apart(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
