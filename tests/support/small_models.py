"""How every model of this package is built small, in less than a second. A new model needs a line in MODELS."""

# Rows of items that are told apart well.
TABLE = {
    "item_embed_dim": 32,
    "item_table_keys": {"n_layers": 1, "train_batch_size": 16, "epochs": 40, "learning_rate": 0.003},
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
# model -> keys beside those of the toy settings (tests/conftest.py)
MODELS = {
    "Blend": {"blend_weights": [0.5, 0.5]},
    "HLLM": {"learning_rate": 0.01, "item_learning_rate": 0.0001, "num_negatives": 8},
    "HSTU": {"learning_rate": 0.01, "num_negatives": 8, "hidden_dropout_prob": 0.0},
    "LEARN": {"learning_rate": 0.01, "content": "id", "content_dim": 8, "dropout": 0.0, "scheduler": "none"},
    "LEARNScorer": {"learning_rate": 0.01, "content": "id", "content_dim": 8, "dropout": 0.0, "scheduler": "none"},
    "LEARNRanker": {"learning_rate": 0.01, "ranker_keys": {"dropout_prob": 0.0}},
    "LLMIDRec": {"learning_rate": 0.01, "num_negatives": 8},
    "E4SRec": {"learning_rate": 0.01, **TABLE},
    "SLMRec": {"learning_rate": 0.01, **TABLE},
    "HLLMRanker": {"learning_rate": 0.01, "item_learning_rate": 0.0001, "history_filter": "all"},
    "Pop": {},
    "Markov": {},
    "TextKNN": {},
    "PromptLLM": {},
    "PromptLLMTuned": {"learning_rate": 0.01, "scheduler": "none"},
    "SASRecNCE": {"learning_rate": 0.01, "num_negatives": 8, **NO_DROPOUT},
    "SASRecCE": {"learning_rate": 0.01, **NO_DROPOUT},
    "SASRecSS": {"learning_rate": 0.01, "num_negatives": 8, **NO_DROPOUT},
    "eSASRec": {"learning_rate": 0.01, "num_negatives": 8, **NO_DROPOUT},
    "LRURec": {"learning_rate": 0.01, "hidden_dropout_prob": 0.0, "recurrent_dropout_prob": 0.0},
    "WhitenRec": {"learning_rate": 0.01, **NO_DROPOUT},
    "UniSRec": {  # one expert, whose gate has no noise; texts without the columns' names, which make them alike
        "learning_rate": 0.005,
        "hidden_size": 32,
        "n_experts": 1,
        "adaptor_dropout_prob": 0.0,
        "with_item_ids": True,
        "text_field": "{value}",
        **NO_DROPOUT,
    },
    "FMLPRec": {"learning_rate": 0.01, "hidden_dropout_prob": 0.0},
    "gSASRec": {"learning_rate": 0.01, "num_negatives": 8, "hidden_size": 32, "temperature": 0.3, **NO_DROPOUT},
}
