"""PixelRec: 200K, 1M and 8M, interactions and item information.

usage: recbole-hllm convert pixelrec FOLDER --to=dataset/pixel8m [--keep=NAME[,NAME...]]

FOLDER holds the interaction file (Pixel200K.csv, Pixel1M.csv or Pixel8M.csv) and the item information, also in folders
of their own or as .gz or .zst. Their headers identify them; --interactions=FILE and --items=FILE name one of
several.

  interactions              CSV, header item_id,user_id,timestamp (the item comes first); ids are i or u and a number,
                            times Unix seconds
  items                     CSV, item_id, seven counters (view_number, comment_number, thumbup_number, share_number,
                            coin_number, favorite_number, barrage_number), title, tag, description; texts may be in
                            quotation marks and hold commas, line breaks and quotation marks; any may be missing

  --keep=view_number        counters to be written as well, separated by commas
"""

from recbole_hllm.data.raw.converters import Conversion, Raw
from recbole_hllm.data.raw.tables import delimited_table, has_columns

OPTIONS: dict[str, str | bool] = {"keep": ""}
_INTERACTIONS = {"item_id": "token", "user_id": "token", "timestamp": "float"}
_ITEMS = {"item_id": "token", "title": "token_seq", "tag": "token", "description": "token_seq"}
_COUNTERS = ("view", "comment", "thumbup", "share", "coin", "favorite", "barrage")


def conversion(raw: Raw) -> Conversion:
    """Interactions, and the texts of the items."""
    inter = raw.interactions(
        "PixelRec's interactions (a CSV file item_id,user_id,timestamp)", has_columns(*_INTERACTIONS)
    )
    items = raw.items("PixelRec's item information (a CSV file with title, tag, description)", has_columns(*_ITEMS))
    kinds = _ITEMS | raw.chosen("keep", {f"{name}_number": "float" for name in _COUNTERS})
    return Conversion(
        {"": delimited_table(raw, inter, {name: name for name in _INTERACTIONS}, _INTERACTIONS)},
        delimited_table(raw, items, {name: name for name in kinds}, kinds) if items else None,
    )
