"""Amazon product data of 2014: ratings or reviews, and metadata, of one category.

usage: recbole-hllm convert amazon2014 FOLDER --to=dataset/NAME [--filter=hllm_books] [--keep=NAME[,NAME...]]

FOLDER holds the files of one category as they are downloaded, .gz or unpacked; --interactions=FILE and --items=FILE
name one of several.

  interactions              ratings_Books.csv: no header, user,item,rating,timestamp; or reviews_Books.json.gz and
                            reviews_Books_5.json.gz: one record per line. Items are ASINs, which stay texts: 0205616461
                            begins with a zero. Times are Unix seconds of whole days
  items                     meta_Books.json.gz: one Python literal per line, which no JSON reader reads; it is read
                            without running anything

  --filter=hllm_books       HSTU's and HLLM's Books: users and items are counted once, on all ratings; ratings whose
                            user and item both have 5 or more stay; then users with fewer than 5 of these go. Items are
                            not counted again; repeated ratings count and stay. ratings_Books.csv gives 10,053,086
                            interactions of 694,897 users with 686,623 items; the papers count the padding, too: 694,898
                            and 686,624
  --keep=brand,categories   of brand, categories and price, what is written beside title and description
"""

from recbole_hllm.data.raw.amazon import ITEM_COLUMNS, items_of, ratings_or_reviews
from recbole_hllm.data.raw.converters import Conversion, Raw

OPTIONS: dict[str, str | bool] = {"keep": ""}
_MORE = ("brand", "categories", "price")


def conversion(raw: Raw) -> Conversion:
    """Ratings, and titles and descriptions."""
    more = raw.chosen("keep", {name: ITEM_COLUMNS[name] for name in _MORE})
    inter = ratings_or_reviews(raw, "ratings_.*csv", "reviews_.*json", ("user_id", "item_id", "rating", "timestamp"))
    return Conversion({"": inter}, items_of(raw, "meta_.*json", "asin", ("title", "description", *more)))
