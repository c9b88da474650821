from mri_transfer.words import duration, size_in_words


def test_sizes_and_times():
    assert [size_in_words(size) for size in (0, 999, 48_000, 4.8e9, 2e12)] == [
        "0 bytes",
        "999 bytes",
        "48 kB",
        "4.8 GB",
        "2 TB",
    ]
    assert [duration(seconds) for seconds in (40, 720, 12_600)] == ["40 s", "12 min", "3.5 h"]
