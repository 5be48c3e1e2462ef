"""Names that keys had before: an error says what they are now, and folders of earlier runs are still read."""



# Keys that only have another name now.
_NAMES = {
    # Of E4SRec and SLMRec: their language model reads vectors of items, as HLLM's User LLM does.
    "llm_pretrain_dir": "user_pretrain_dir",
    "llm_init": "user_llm_init",
    "llm_config": "user_llm_config",
    "llm_layers": "user_llm_layers",
    "llm_tuning": "user_llm_tuning",
    # Of LEARN: the content's language model reads texts of items, the preference module their vectors.
    "content_llm_dir": "item_pretrain_dir",
    "content_bert_dir": "item_pretrain_dir",
    "content_layers": "item_llm_layers",
    "preference_dir": "user_pretrain_dir",
    "preference_layers": "user_llm_layers",
    "preference_tuning": "user_llm_tuning",
    "negatives_from": "negatives",
    # Of HSTU: a variant is a row of a table, HSTU@name.
    "variant": "implementation",
}
# Keys that another one says now, and how.
_SAID_OTHERWISE = {
    "distill": "a weight of 0 leaves a term out: distill_cos, distill_norm, distill_heads",
    "reduction": "reference: [distillation_sum] is the published code's sum over blocks",
    "norm_power": "reference: [distillation_norm] is the published code's distance, not squared",
}
