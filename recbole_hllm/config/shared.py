"""Keys that all rows of a table share."""

# What a row may not set for itself: it would no longer be comparable with the others.
SHARED_KEYS = {
    "model", "dataset", "resume", "evaluate_only",
    "data_path", "eval_args", "eval_targets", "metrics", "topk", "valid_metric", "mask_history", "benchmark_filename",
    "user_inter_num_interval", "item_inter_num_interval", "val_interval", "rm_dup_inter", "strict_data", "reference",
    "filter_inter_by_user_or_item", "USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD", "metric_decimal_place",
    "repeatable", "field_separator", "encoding", "segments_user", "segments_item", "sanity_rows",
    "threshold", "LABEL_FIELD", "history_filter", "trials", "ratios_to", "tail_ratio",
}  # fmt: skip
