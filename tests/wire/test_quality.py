"""Quality codes: one byte, two axes, and words for people."""

import numpy as np
import pytest

from wire import Quality, Reason, describe, is_quality_code, quality_code, quality_of, reason_of

CODES = [quality_code(quality, reason) for quality in Quality for reason in Reason]


def test_every_reason_fits_beside_every_quality():
    assert len(set(CODES)) == len(Quality) * len(Reason)
    assert all(0 <= code <= 255 for code in CODES)


@pytest.mark.parametrize("code", CODES)
def test_a_code_parts_into_what_it_was_made_of(code):
    assert quality_code(Quality(quality_of(code)), Reason(reason_of(code))) == code


def test_columns_of_codes_part_like_single_ones():
    column = np.array(CODES, np.uint8)
    assert quality_of(column).dtype == reason_of(column).dtype == np.uint8
    assert quality_of(column).tolist() == [quality_of(code) for code in CODES]
    assert reason_of(column).tolist() == [reason_of(code) for code in CODES]


def test_qualities_of_different_rank_compare_by_size():
    by_quality = {quality: [quality_code(quality, reason) for reason in Reason] for quality in Quality}
    assert max(by_quality[Quality.BAD]) < min(by_quality[Quality.UNCERTAIN])
    assert max(by_quality[Quality.UNCERTAIN]) < min(by_quality[Quality.GOOD])


@pytest.mark.parametrize(("code", "ours"), [
    (192, True), (0, True), (64, True), (1, True), (64 | 5, True),
    pytest.param(193, False, id="GOOD never has a reason"),
    pytest.param(128, False, id="no quality has this number"),
    pytest.param(12, False, id="no reason has this number"),
    (-1, False), (256, False), (2**40, False),
])
def test_a_number_from_outside_is_a_code_only_if_we_could_have_made_it(code, ours):
    assert is_quality_code(code) is ours


@pytest.mark.parametrize(("code", "zh", "en"), [
    (1, "坏值/通信中断", "bad/no communication"),
    (64 | 5, "可疑/超出量程", "uncertain/beyond range"),
    (192, "有效", "good"),
    pytest.param(128 | 40, "坏值/原因不明", "bad/unknown reason", id="unknown parts are never called good"),
])
def test_a_code_in_words(code, zh, en):
    assert (describe(code, "zh"), describe(code, "en")) == (zh, en)


def test_every_code_has_words_of_its_own_in_both_languages():
    for language in ("zh", "en"):
        assert len({describe(code, language) for code in CODES}) == len(CODES)
