from mri_transfer.words import counted, duration, size_in_words


def test_sizes_and_times():
    assert [size_in_words(size) for size in (0, 999, 48_000, 4.8e9, 2e12)] == [
        "0 bytes",
        "999 bytes",
        "48 kB",
        "4.8 GB",
        "2 TB",
    ]
    assert [duration(seconds) for seconds in (40, 720, 12_600)] == ["40 s", "12 min", "3.5 h"]


def test_one_of_a_thing_is_singular():
    assert [counted(number, "step") for number in (0, 1, 2_000)] == ["0 steps", "1 step", "2,000 steps"]
