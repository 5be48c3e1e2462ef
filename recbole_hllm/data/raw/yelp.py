"""Yelp Open Dataset: reviews and businesses as JSON lines.

usage: recbole-hllm convert yelp FOLDER_OR_TAR --to=dataset/yelp [--keep=NAME[,NAME...]]

FOLDER_OR_TAR holds yelp_academic_dataset_review.json and yelp_academic_dataset_business.json, or is the .tar with them.

  interactions              user_id, business_id, stars and date of each review; dates are ISO 8601 and are taken as UTC
  items                     name, categories (a text with commas, or null) and city of each business

  --keep=state,address      of state, address, postal_code, what is written as well
"""

from recbole_hllm.data.raw.converters import Conversion, Raw
from recbole_hllm.data.raw.records import Record, id_of, number_of, text_of
from recbole_hllm.data.raw.tables import is_named, record_table

OPTIONS: dict[str, str | bool] = {"keep": ""}
_INTERACTIONS = {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"}
_ITEMS = {"item_id": "token", "name": "token_seq", "categories": "token_seq", "city": "token"}
_MORE = {"state": "token", "address": "token_seq", "postal_code": "token"}


def conversion(raw: Raw) -> Conversion:
    """Reviews, and names, categories and cities."""
    reviews = raw.interactions("Yelp's reviews (yelp_academic_dataset_review.json)", is_named(r".*review\.json"))
    businesses = raw.items("Yelp's businesses (yelp_academic_dataset_business.json)", is_named(r".*business\.json"))
    kinds = _ITEMS | raw.chosen("keep", _MORE)

    def business(record: Record) -> list[str | None]:
        return [id_of(record.get("business_id")), *(text_of(record.get(name)) for name in list(kinds)[1:])]

    inter = record_table(raw, [reviews], _INTERACTIONS, _review)
    return Conversion({"": inter}, record_table(raw, [businesses], kinds, business) if businesses else None)


def _review(record: Record) -> list[str | None]:
    ids = (id_of(record.get(name)) for name in ("user_id", "business_id"))
    return [*ids, number_of(record.get("stars")), text_of(record.get("date"))]
