"""Keys of SLMRec and its teacher E4SRec."""

from typing import Any

from recbole_hllm.config.keys.language_models import CheckpointingKeys, ComputeKeys, LLMTrainingKeys, LoraKeys
from recbole_hllm.config.keys.next_item import HistoryKeys, TableSizeKeys
from recbole_hllm.config.schema import Scope, Settings, default, key

PLACE, TRAINING = Scope.PLACE, Scope.TRAINING


class ItemTableKeys(TableSizeKeys):
    """The item table."""

    title = "Item table: what SASRec has learned of the ids"

    item_table: str | None = key(
        None,
        "Folder of a run of SASRec (or another model of ids), RecBole's own .pth of these files, filters and "
        "split (which such a file does not hold), or row:SASRec in a table. Empty: a SASRec is trained first, and kept "
        "in the cache.",
        source=True,
    )
    item_embed_dim: int = default(128)
    item_table_keys: dict[str, Any] | None = key(
        {"n_heads": 1, "inner_size": 128, "train_batch_size": 512, "stopping_step": 2, "precision": "auto"},
        "Keys of the SASRec that is trained where item_table is empty; hidden_size is item_embed_dim.",
        scope=TRAINING,
    )
    pretrained_e4srec: str | None = key(
        None,
        "An export of E4SRec or SLMRec to start from, instead of item_table and user_pretrain_dir; it"
        " is needed again to read the run back.",
        source=True,
    )


class LanguageModelKeys(Settings):
    """The language model over the item table."""

    title = "Language model"

    user_pretrain_dir: str | None = default(
        None,
        "Hub id, folder, GGUF file, or package:NAME/PATH inside an installed package. Empty: built from "
        "user_llm_config.",
    )
    user_llm_init: bool = default(False, "True: pretrained weights. False: random weights.")
    user_llm_config: dict[str, Any] | None = default(
        {
            "model_type": "llama",
            "hidden_size": 128,
            "intermediate_size": 352,
            "num_hidden_layers": 8,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 2048,
            "vocab_size": 8,
        },
        "Keys of the Hugging Face config for random weights: all of them, or those to change in user_pretrain_dir's.",
    )
    user_llm_layers: int | None = default(None, "Keep the first k layers only: E4SRec_8 is user_llm_layers: 8.")
    user_llm_tuning: str | None = default(
        None,
        "full: all weights are trained. lora: additions to its linear layers. frozen: it stays as it is. The "
        "projections are trained always. Empty: lora with user_llm_init: True, full otherwise.",
    )


class E4SRecComputeKeys(CheckpointingKeys, ComputeKeys):
    """How the language model is computed."""

    title = "Memory and speed"

    gradient_checkpointing: bool = default(
        False,
        "Compute activations again in the backward pass, layer by layer, to save memory.",
    )
    attn_implementation: str | None = default(
        None,
        "eager, sdpa, flash_attention_2 or flex_attention. Empty: eager on a CPU, the library's choice on a GPU.",
    )
    trust_remote_code: bool = default(
        False,
        "Let the language model's folder bring its own Python code. Never taken from a run's folder.",
    )


class E4SRecLoraKeys(LoraKeys):
    """LoRA."""

    title = "LoRA (needs the extra 'peft')"

    lora_r: int = default(16)
    lora_alpha: float = default(16)
    lora_dropout: float = default(0.05)
    lora_target_modules: str | list[str] | None = default(["gate_proj", "up_proj", "down_proj"])


class ReadingKeys(HistoryKeys):
    """What is read."""

    title = "What is read"

    instruction: str | None = key(
        None,
        "Text with one place {items} for the history; needs user_pretrain_dir for its tokenizer. Empty: items alone.",
    )
    training_rows: str = key(
        "positions",
        "positions: every item of a history predicts the next in one pass, cheapest; no text after {items}. "
        "prefix: a row for each beginning of a history (E4SRec). user: the longest of them only (SLMRec's code), "
        "cheap and with the fewest targets.",
        scope=TRAINING, choices=("positions", "prefix", "user"),
    )  # fmt: skip
    data_split: bool = default(
        True,
        "With positions: cut long histories into chunks, each position a target once. False: the last chunk only.",
    )
    MAX_ITEM_LIST_LENGTH_TEST: int | None = default(
        None,
        "With positions: history length in evaluation. Empty: MAX_ITEM_LIST_LENGTH.",
    )


class E4SRecTrainingKeys(LLMTrainingKeys):
    """How E4SRec is trained."""

    title = "Training"

    warmup_ratio: float = default(0.05, "Share of all steps in which the learning rate rises.")
    epochs: int = default(10, "Most epochs.")
    train_batch_size: int = default(64, "Histories per batch.")
    precision: str | None = default(
        "auto",
        "Autocast: bf16, fp16 or fp32; auto is bf16 where the GPU or CPU has instructions for it, else fp32.",
    )


class E4SRecKeys(ItemTableKeys, LanguageModelKeys, E4SRecLoraKeys, ReadingKeys, E4SRecTrainingKeys, E4SRecComputeKeys):
    """E4SRec, the teacher of SLMRec (arXiv 2405.17890): a language model over the frozen item table of a
    trained SASRec. These defaults run offline on a CPU: a small Llama from scratch. Published:
    user_pretrain_dir LLaMA-2-7B, user_llm_init: True, user_llm_tuning: lora, an instruction with text after the items,
    training_rows: user, MAX_ITEM_LIST_LENGTH: 30, epochs: 3, train_batch_size: 32. E4SRec's own paper:
    item_embed_dim: 64, training_rows: prefix, learning_rate: 3e-4.
    """


class TeacherKeys(Settings):
    """Student and teacher."""

    title = "Student and teacher"

    teacher: str | None = key(
        None,
        "Folder of a run of E4SRec, or row:E4SRec in a table. Empty: an E4SRec is trained first, and kept in the "
        "cache.",
        source=True,
    )
    teacher_keys: dict[str, Any] | None = key(
        {"user_llm_layers": 8},
        "Keys in which that E4SRec, or the one beside an online student, differs from this student.",
        scope=TRAINING,
    )


class DistillationKeys(Settings):
    """Distillation (section 3.2)."""

    title = "Distillation (section 3.2)"

    distillation: str = key(
        "offline",
        "offline: a trained teacher that stays as it is. online: student and teacher are trained together.",
        scope=TRAINING, choices=("offline", "online"),
    )  # fmt: skip
    blocks: int = key(4, "B, blocks of equally many layers in both.", scope=TRAINING, least=1)
    distill_cos: float = key(
        1.0,
        "Lambda 1, of 1 - cos between the states at the end of each block. 0: not in the loss.",
        scope=TRAINING, least=0,
    )  # fmt: skip
    distill_norm: float = key(
        0.1,
        "Lambda 2, of the distance of these states; pretrained language models need less, SmolLM2 0.001, and a "
        "warning says where it is nearly all of the loss. 0: not in the loss.",
        scope=TRAINING, least=0,
    )  # fmt: skip
    distill_heads: float = key(
        0.1,
        "Lambda 3, of the cross-entropy of a head on each block but the last. 0: no such heads.",
        scope=TRAINING, least=0,
    )  # fmt: skip
    teacher_cache: bool = key(
        True,
        "Offline: compute the teacher's states on the training rows once and keep them on the disk. False: with "
        "every batch again.",
        scope=PLACE,
    )


class SLMRecKeys(E4SRecKeys, TeacherKeys, DistillationKeys):
    """SLMRec (arXiv 2405.17890): the first layers of an E4SRec, taught block by block. It has the keys of
    E4SRec too. Published: teacher 8 layers of LLaMA-2-7B, student 4, learning rates 1e-3 to 3e-3,
    distill_heads 1 (Cloth, Movie), 0.1 (Sport) or 0.01 (Music). The published code: reference:
    [distillation_sum, distillation_norm], distill_norm: 0.1 fixed, and no distillation as started by its own
    script.
    """

    user_llm_layers: int | None = default(4, "Layers of the student.")
