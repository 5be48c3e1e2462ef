"""MovieLens' three kinds of files."""

import zipfile

import pytest

GENRES = 19


def test_100k_with_latin_1_and_flags(converted):
    flags = ["0"] * GENRES
    flags[3] = flags[5] = "1"
    movies = (
        f"1|Mis\xe9rables, Les (1995)|01-Jan-1995||http://x|{'|'.join(flags)}\n2|Plain|||u|{'|'.join(['0'] * GENRES)}\n"
    )
    found = converted(
        "movielens", {"u.data": "196\t1\t3\t881250949\n22\t2\t1\t878887116\n", "u.item": movies.encode("latin-1")}
    )
    assert found.inter == [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float", "196\t1\t3\t881250949", "22\t2\t1\t878887116",
    ]  # fmt: skip
    assert found.item == [
        "item_id:token\ttitle:token_seq\tgenres:token_seq",
        "1\tMis\xe9rables, Les (1995)\tAnimation, Comedy",
        "2\tPlain\t",
    ]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_dat_files(converted, encoding):
    movies = "1::Caf\xe9: The :: Movie (1995)::Animation|Children's\n2::Other (1996)::(no genres listed)\n"
    ratings = "1::1::5::978300760\n1::2::3.5::978302109\n"
    files = {"ml/ratings.dat": ratings, "ml/movies.dat": movies.encode(encoding)}
    found = converted("movielens", files)
    assert found.inter[1:] == ["1\t1\t5\t978300760", "1\t2\t3.5\t978302109"]
    assert found.item[1:] == ["1\tCaf\xe9: The :: Movie (1995)\tAnimation, Children's", "2\tOther (1996)\t"]


CSV = {
    "ratings.csv": "userId,movieId,rating,timestamp\n1,10,4.0,964982703\n2,10,1.5,964982931\n",
    "movies.csv": 'movieId,title,genres\n10,"American President, The (1995)",Comedy|Drama\n11,Unseen,Drama\n',
    "tags.csv": 'userId,movieId,tag,timestamp\n1,10,funny,1\n2,10,"a, ""b""",1\n3,10,funny,1\n3,11,dark,1\n3,10, ,1\n',
    "links.csv": "movieId,imdbId,tmdbId\n10,0114709,862\n",
}


def test_csv_files_with_tags(converted):
    found = converted("movielens", CSV)
    assert found.item == [
        "item_id:token\ttitle:token_seq\tgenres:token_seq\ttags:token_seq",
        '10\tAmerican President, The (1995)\tComedy, Drama\tfunny, a, "b"',
    ]
    assert [file["file"].rpartition("/")[2] for file in found.facts["files"]] == [
        "ratings.csv",
        "movies.csv",
        "tags.csv",
    ]


def test_tags_of_dat_files(converted):
    files = {
        "ratings.dat": "1::5::5::978300760\n",
        "movies.dat": "5::A::B\n",
        "tags.dat": "1::5::x::y::978300760\n1::5::z::1\n",
    }
    assert converted("movielens", files).item[1:] == ["5\tA\tB\tx::y, z"]


def test_the_download_as_it_is(converted, tmp_path):
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
        for name, text in CSV.items():
            archive.writestr(f"ml-latest/{name}", text)
    found = converted("movielens", {}, sources=[tmp_path / "ml.zip"])
    assert len(found.inter) == 3 and len(found.item) == 2
    assert [file["file"] for file in found.facts["files"]] == [str(tmp_path / "ml.zip")]
