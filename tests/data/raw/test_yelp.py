"""Yelp's JSON lines and dates, in the .tar that is downloaded."""

import io
import tarfile

REVIEW = (
    '{"review_id":"r","user_id":"u-1","business_id":"b_1","stars":4.0,"text":"a\\nb","date":"2018-07-07 22:09:11"}\n'
    '{"review_id":"s","user_id":"u-1","business_id":"b_2","stars":1.0,"text":"","date":"2005-02-16 00:00:00"}\n'
)
BUSINESS = (
    '{"business_id":"b_1","name":"Caf\\u00e9","city":"Tampa","state":"FL","categories":"Doctors, Food"}\n'
    '{"business_id":"b_2","name":"X","city":"","state":"AZ","categories":null}\n'
)


def test_reviews_and_businesses(converted, tmp_path):
    with tarfile.open(tmp_path / "yelp.tar", "w") as tar:
        for name, text in (("review", REVIEW), ("business", BUSINESS), ("tip", "{}\n")):
            info = tarfile.TarInfo(f"yelp_academic_dataset_{name}.json")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    found = converted("yelp", {}, sources=[tmp_path / "yelp.tar"], keep="state")
    assert found.inter[1:] == ["u-1\tb_1\t4.0\t1531001351", "u-1\tb_2\t1.0\t1108512000"]
    assert found.item == [
        "item_id:token\tname:token_seq\tcategories:token_seq\tcity:token\tstate:token",
        "b_1\tCafé\tDoctors, Food\tTampa\tFL",
        "b_2\tX\t\t\tAZ",
    ]
    assert set(found.facts["times"].values()) == {"ISO 8601 dates"}
