"""docs/files.md says what every file is."""

from experiments import list_files


def test_the_list_of_files_is_up_to_date():
    assert list_files.TARGET.read_text(encoding="utf-8") == list_files.listing(), (
        "run python experiments/list_files.py"
    )
