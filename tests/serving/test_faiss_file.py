"""Files of faiss are looked at before faiss reads them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_export import served_vectors

from recbole_hllm.errors import Damaged
from recbole_hllm.serving.faiss_file import Layout, checked_layout
from recbole_hllm.serving.faiss_index import KINDS, filled

faiss = pytest.importorskip("faiss")
WIDTH = 8


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Kind -> bytes of a small file of it."""
    found = {}
    for kind in KINDS:
        path = tmp_path_factory.mktemp(kind) / "index.faiss"
        faiss.write_index(filled(served_vectors(40).items, kind, breadth=3), str(path))
        found[kind] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("read") / "index.faiss"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read(kind, files, path):
    path.write_bytes(files[kind])
    assert checked_layout(path) == Layout(kind, 40, WIDTH)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_anywhere_or_goes_on_is_refused(kind, files, path):
    content = files[kind]
    for size in [*range(0, len(content), 7), len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(Damaged, match="index.faiss is"):
            checked_layout(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(Damaged, match="goes on after its end"):
        checked_layout(path)


@given(st.sampled_from(sorted(KINDS)), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4))
@settings(max_examples=150, deadline=None)
def test_whatever_bytes_are_changed_faiss_reads_what_passes_and_searches_it(files, path, kind, changes):
    """A place outside the memory would end this process."""
    content = bytearray(files[kind])
    for place, value in changes:
        content[place % len(content)] = value
    path.write_bytes(bytes(content))
    try:
        layout = checked_layout(path)
    except Damaged:
        return
    built = faiss.read_index(str(path))
    assert (built.ntotal, built.d) == (layout.count, layout.width)
    found = built.search(np.ones((3, layout.width), np.float32), 5, params=KINDS[layout.kind].parameters(7, 5))[1]
    assert found.max() < layout.count


def replaced(content, old, new, kind="<i4"):
    """The bytes with an array's first place of numbers written over."""
    old, new = np.array(old, kind).tobytes(), np.array(new, kind).tobytes()
    assert old in content
    return content.replace(old, new, 1)


def test_links_out_of_bounds_are_refused(files, path):
    index = faiss.deserialize_index(np.frombuffer(files["hnsw"], np.uint8))
    links = faiss.vector_to_array(index.hnsw.neighbors)
    for wrong in (40, 2**30, -2):
        changed = links.copy()
        changed[5] = wrong
        path.write_bytes(replaced(files["hnsw"], links, changed))
        with pytest.raises(Damaged, match="a link leads to no item"):
            checked_layout(path)


def test_a_link_to_an_item_of_a_lower_layer_is_refused(files, path):
    index = faiss.deserialize_index(np.frombuffer(files["hnsw"], np.uint8))  # it owns the graph
    graph = index.hnsw
    links, layers = faiss.vector_to_array(graph.neighbors), faiss.vector_to_array(graph.levels)
    offsets, begins = faiss.vector_to_array(graph.offsets), faiss.vector_to_array(graph.cum_nneighbor_per_level)
    high, low = int(np.flatnonzero(layers > 1)[0]), int(np.flatnonzero(layers == 1)[0])
    changed = links.copy()
    changed[int(offsets[high]) + begins[1]] = low
    path.write_bytes(replaced(files["hnsw"], links, changed))
    with pytest.raises(Damaged, match="not in its layer"):
        checked_layout(path)


def test_kinds_that_read_other_files_or_were_not_written_here_are_refused(files, path):
    lists = files["ivf"]
    assert lists.count(b"ilar") == 1
    cases = {
        lists.replace(b"ilar", b"ilod"): "its lists lie elsewhere",
        files["flat"].replace(b"IxFI", b"IxF2"): "begins with b'IxF2'",
        files["hnsw"].replace(b"IxSQ", b"IxPT"): "its vectors are kept in another way",
        b"\x80\x04" + files["flat"]: "begins with",
    }
    for content, message in cases.items():
        path.write_bytes(content)
        with pytest.raises(Damaged, match=message):
            checked_layout(path)


def test_lists_that_are_mostly_empty_are_read(path):
    vectors = np.random.default_rng(0).normal(size=(6, WIDTH)).astype(np.float32)
    inner = faiss.IndexFlatIP(WIDTH)
    index = faiss.IndexIVFFlat(inner, WIDTH, 5, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1
    index.train(vectors)
    index.add(np.repeat(vectors[:1], 3, axis=0))
    faiss.write_index(index, str(path))
    assert b"sprs" in path.read_bytes()
    assert checked_layout(path) == Layout("ivf", 3, WIDTH)


def test_a_missing_file(tmp_path):
    with pytest.raises(Damaged, match="is missing or damaged"):
        checked_layout(tmp_path / "index.faiss")
