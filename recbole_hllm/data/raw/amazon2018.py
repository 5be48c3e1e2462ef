"""Amazon review data of 2018: ratings or reviews, and metadata, of one category.

usage: recbole-hllm convert amazon2018 FOLDER --to=dataset/NAME [--keep=NAME[,NAME...]] [--plain]

FOLDER holds the files of one category as they are downloaded, .gz or unpacked; --interactions=FILE and --items=FILE
name one of several.

  interactions              All_Beauty.csv: no header, item,user,rating,timestamp (the item comes first, other than in
                            2014); or All_Beauty.json.gz and All_Beauty_5.json.gz: JSON lines. Times are Unix seconds
                            of whole days
  items                     meta_All_Beauty.json.gz: JSON lines; description, feature and category are lists of texts,
                            which are joined; texts hold HTML entities, which are decoded when texts are read, and
                            sometimes tags

  --keep=brand,categories   of features, brand, categories, main_category and price, what is written beside title and
                            description
  --plain                   leaves tags of HTML out of the texts, and scripts with their content
"""

from recbole_hllm.data.raw.amazon import ITEM_COLUMNS, items_of, ratings_or_reviews
from recbole_hllm.data.raw.converters import Conversion, Raw

OPTIONS: dict[str, str | bool] = {"keep": "", "plain": False}
_MORE = ("features", "brand", "categories", "main_category", "price")


def conversion(raw: Raw) -> Conversion:
    """Ratings, and titles and descriptions."""
    more = raw.chosen("keep", {name: ITEM_COLUMNS[name] for name in _MORE})
    order = ("item_id", "user_id", "rating", "timestamp")
    inter = ratings_or_reviews(raw, r"(?!meta_).*csv", r"(?!meta_).*json", order)
    columns = ("title", "description", *more)
    return Conversion({"": inter}, items_of(raw, "meta_.*json", "asin", columns, bool(raw.options["plain"])))
