"""Names of the columns that rows have beside those of the data."""

# Full-precision times in seconds: of the items of a history, and of its target.
EVENT_TIMES, EVENT_TIME = "event_time_list", "event_time"
# Numbers of the actions or ratings of a history, 0 is padding; there with the key ``action_field``.
EVENT_ACTIONS = "event_action_list"
# Place of a training row among all of them, for models that keep something for each.
ROW_NUMBER = "row_number"
# (B, W) all items that a user had before the target, oldest first, padded on the right with 0 to the longest of them.
WHOLE_HISTORY = "whole_history_list"
# (B, T) items of several targets, oldest first, padded on the right with 0.
TARGET_ITEMS = "target_item_list"
