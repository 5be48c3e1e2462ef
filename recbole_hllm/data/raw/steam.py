"""Steam: reviews and games as published with SASRec and by UCSD.

usage: recbole-hllm convert steam FOLDER --to=dataset/steam [--user=username] [--keep=NAME[,NAME...]]

FOLDER holds steam_reviews.json.gz and steam_games.json.gz, packed or not: one Python literal per line, which no JSON
reader reads; they are read without running anything.

  interactions              product_id and date (a day, ISO 8601) of each review, and its user. Reviews have no rating,
                            and no order within a day but that of the file
  items                     id, app_name and genres of each game; where app_name is missing, its title

  --user=username           the key of a user: username, which every review has, or user_id, which many have not;
                            reviews without it are counted as malformed
  --keep=tags,specs         of tags, specs, developer, publisher, price, what is written as well
"""

from recbole_hllm.data.raw.converters import Conversion, Raw
from recbole_hllm.data.raw.records import Record, id_of, names_of, text_of
from recbole_hllm.data.raw.tables import is_named, record_table

OPTIONS: dict[str, str | bool] = {"user": "username", "keep": ""}
_INTERACTIONS = {"user_id": "token", "item_id": "token", "timestamp": "float"}
_ITEMS = {"item_id": "token", "app_name": "token_seq", "genres": "token_seq"}
_MORE = {"tags": "token_seq", "specs": "token_seq", "developer": "token", "publisher": "token", "price": "token"}


def conversion(raw: Raw) -> Conversion:
    """Reviews, and names, genres, tags and specs."""
    user, kinds = raw.text("user"), _ITEMS | raw.chosen("keep", _MORE)

    def review(record: Record) -> list[str | None]:
        return [id_of(record.get(user)), id_of(record.get("product_id")), text_of(record.get("date"))]

    def game(record: Record) -> list[str | None]:
        title = record.get("app_name") or record.get("title")
        return [id_of(record.get("id")), text_of(title), *(names_of(record.get(name)) for name in list(kinds)[2:])]

    reviews = raw.interactions("Steam's reviews (steam_reviews.json)", is_named(r"steam_reviews\.json"))
    games = raw.items("Steam's games (steam_games.json)", is_named(r"steam_games\.json"))
    inter = record_table(raw, [reviews], _INTERACTIONS, review)
    return Conversion({"": inter}, record_table(raw, [games], kinds, game) if games else None)
