"""Steam's Python literals."""

REVIEWS = (
    "{u'username': u'Chaos Syr\\xe9n', u'hours': 0.1, u'product_id': u'725280', u'date': u'2017-12-17'}\n"
    "{'username': 'b', 'user_id': '76561198007483075', 'product_id': '328100', 'date': '2017-12-18'}\n"
)
GAMES = (
    "{'publisher': 'P', 'genres': ['Action', 'Indie'], 'app_name': 'Lost', 'id': '725280', 'price': 4.99}\n"
    "{'title': 'Only \"title\"', 'id': '328100', 'price': 'Free', 'specs': ['Multi-player']}\n{'price': 1.0}\n"
)
FILES = {"steam_reviews.json": REVIEWS, "steam_games.json": GAMES}


def test_reviews_and_games(converted):
    found = converted("steam", FILES, keep="specs,price")
    assert found.inter[1:] == ["Chaos Syrén\t725280\t1513468800", "b\t328100\t1513555200"]
    assert found.item == [
        "item_id:token\tapp_name:token_seq\tgenres:token_seq\tspecs:token_seq\tprice:token",
        "725280\tLost\tAction, Indie\t\t4.99",
        '328100\tOnly "title"\t\tMulti-player\tFree',
    ]
    rows = found.facts["item_rows"]
    assert rows["malformed"] == 1 and rows["lines"][0]["reason"] == "item_id is empty" and rows["lines"][0]["line"] == 3


def test_another_key_for_the_user(converted):
    found = converted("steam", FILES, user="user_id")
    assert found.inter[1:] == ["76561198007483075\t328100\t1513555200"]
    assert found.facts["interactions"]["malformed"] == 1
