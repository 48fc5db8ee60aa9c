"""Your own text: the same pairs and fingerprint however the files are stored."""

import gzip
import lzma

import pytest

import data
from data.files import read_lines


def build(**options):
    return data.build_source({"name": "folder", **options}, "")


PAIRS = [("Ciao, mondo.", "Hello, world."), ("naïve caffè \U0001f600", "a\u2028b"), ("x", "yz w")]
OPEN = {"": open, ".gz": gzip.open, ".xz": lzma.open}


def write_table(folder, ending="", newline="\n", start="", pairs=PAIRS):
    for split in data.SPLITS:
        text = start + "".join(f"{source}\t{target}{newline}" for source, target in pairs)
        with OPEN[ending](folder / f"{split}.tsv{ending}", "wb") as file:
            file.write(text.encode())


def write_pair(folder, ending="", pairs=PAIRS):
    for split in data.SPLITS:
        for side, language in enumerate(("it", "en")):
            with OPEN[ending](folder / f"{split}.{language}{ending}", "wb") as file:
                file.write("".join(f"{pair[side]}\n" for pair in pairs).encode())


@pytest.mark.parametrize("ending", ["", ".gz", ".xz"])
@pytest.mark.parametrize("kind", ["table", "pair"])
def test_a_folder_gives_its_pairs_however_they_are_stored(tmp_path, kind, ending):
    (tmp_path / "plain").mkdir()
    write_table(tmp_path / "plain")
    (tmp_path / "other").mkdir()
    languages = {}
    if kind == "pair":
        languages = {"source_language": "it", "target_language": "en"}
        write_pair(tmp_path / "other", ending)
    else:
        write_table(tmp_path / "other", ending)
    plain = build(path=str(tmp_path / "plain"))
    other = build(path=str(tmp_path / "other"), **languages)
    assert [(pair.source, pair.target) for pair in other.pairs("train")] == PAIRS
    assert plain.fingerprint() == other.fingerprint()


def test_line_ends_and_byte_order_marks_are_no_text(tmp_path):
    write_table(tmp_path, newline="\r\n", start="\ufeff")
    pairs = build(path=str(tmp_path)).pairs("test")
    assert [(pair.source, pair.target) for pair in pairs] == PAIRS


def test_only_line_ends_end_a_line(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("\ufeffa \r\nb\u2028c\x0bd\n\n\re".encode())
    assert read_lines(path) == ["a ", "b\u2028c\x0bd", "", "\re"]


def test_the_last_line_needs_no_end(tmp_path):
    write_table(tmp_path)
    (tmp_path / "test.tsv").write_text("a\tb\nc\td")
    assert len(build(path=str(tmp_path)).pairs("test")) == 2


def test_languages_choose_the_direction(tmp_path):
    write_pair(tmp_path)
    options = {"source_language": "en", "target_language": "it"}
    source = build(path=str(tmp_path), **options)
    assert source.pairs("train")[0][:2] == PAIRS[0][::-1]
    assert (source.source_language, source.target_language) == ("en", "it")


def test_any_change_of_the_text_changes_the_fingerprint(tmp_path):
    changes = [
        [*PAIRS, ("one", "more")],
        PAIRS[:-1],
        PAIRS[::-1],
        [PAIRS[0], PAIRS[1], ("x", "yz  w")],
        [PAIRS[0], PAIRS[1], ("xy", "z w")],
        [PAIRS[0], PAIRS[1], ("X", "yz w")],
    ]
    seen = set()
    for number, pairs in enumerate([PAIRS, *changes]):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_table(folder)
        write_table(folder, pairs=PAIRS)
        text = "".join(f"{source}\t{target}\n" for source, target in pairs)
        (folder / "validation.tsv").write_bytes(text.encode())
        source = build(path=str(folder))
        assert source.split_fingerprint("train") == source.split_fingerprint("test")
        seen.add(source.fingerprint())
    assert len(seen) == 1 + len(changes)
    print(f"{len(changes)} changes")
