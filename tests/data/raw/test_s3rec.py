"""S3-Rec's lines of sequences."""


def test_sequences_and_attributes(converted):
    files = {
        "Beauty.txt": "1 1 2 3\n2 2 2\n\n3\n1 9\n",
        "Beauty_item2attributes.json": '{"1": [4, 5], "2": [], "77": [1]}',
    }
    found = converted("s3rec", files)
    assert found.inter == [
        "user_id:token\titem_id:token\ttimestamp:float",
        "1\t1\t0", "1\t2\t1", "1\t3\t2", "2\t2\t0", "2\t2\t1", "1\t9\t3",
    ]  # fmt: skip
    assert found.item == ["item_id:token\tattributes:token_seq", "1\t4 5", "2\t"]
    assert found.facts["interactions"]["malformed"] == 1
    assert found.facts["interactions"]["lines"][0]["reason"] == "user '3' has no items"
    assert found.facts["interactions"]["lines"][0]["line"] == 4
