from __future__ import annotations

import pytest
from hypothesis import given

from csm_repl.text.phones import LETTER_NAMES, MARKS, Letters, PhoneFront, context_of
from tests.support.fronts import LETTERS, LEXICON
from tests.support.texts import TEXTS

FRONT = PhoneFront(
    "".join(f"{word} {phones}\n" for word, phones in sorted(LEXICON.items())).encode(), Letters(LETTERS)
)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Hello, world!", "HH AH0 L OW1 , W ER1 L D !"),
        ("HELLO world", "HH AH0 L OW1 W ER1 L D"),
        ("Don’t", "D OW1 N T"),
        ("hello's", "HH AH0 L OW1 Z"),
        ("life's", "L AY1 F S"),
        ("'hello'", "HH AH0 L OW1"),
        ("Héllo", "HH AH0 L OW1"),
        ("hello-world", "HH AH0 L OW1 - W ER1 L D"),
        ("hello … world — a?!", "HH AH0 L OW1 . W ER1 L D - AH0 ?"),
        ("“hello” (world)", "HH AH0 L OW1 W ER1 L D"),
        ("F B I", "EH1 F B IY1 AY1"),
        ("A M", "EY1 EH1 M"),
        ("A. M", "AH0 . EH1 M"),
        ("A life", "AH0 L AY1 F"),
        ("X", "EH1 K S"),
        ("", ""),
        ("日本 5 🙂", ""),
    ],
)
def test_text_is_read(text: str, read: str) -> None:
    assert FRONT.read(text) == read


def test_unknown_words_are_read_by_their_letters_with_the_widest_context_that_is_known() -> None:
    assert FRONT.read("dog") == "D AA1 G"
    assert FRONT.read("old") == "OW1 L D"
    assert FRONT.read("box's") == "B AA1 K S IH0 Z"
    assert FRONT.read("dogs") == "D AA1 G S"


def test_a_context_grows_to_both_sides() -> None:
    assert [context_of("cab", 1, width) for width in range(5)] == ["a", "ab", "abc", "abc#", "abc##"]


def test_words_know_where_they_stand() -> None:
    text = "Hello,  dog's world!"
    words = list(FRONT.words(text))
    assert [text[word.start : word.end] for word in words] == ["Hello", ",", "dog's", "world", "!"]
    assert " ".join(word.phones for word in words) == FRONT.read(text)


@given(TEXTS)
def test_whatever_is_typed_is_read_as_phones_and_marks(text: str) -> None:
    known = {
        phone
        for phones in (*LEXICON.values(), *LETTERS.values(), *LETTER_NAMES.values())
        for phone in phones.split()
    }
    assert set(FRONT.read(text).split()) <= known | MARKS | {"IH0", "Z", "S"}
    at = 0
    for word in FRONT.words(text):
        assert at <= word.start < word.end <= len(text)
        at = word.end


@pytest.mark.parametrize(
    ("char", "reads"), [("a", True), ("É", True), ("!", True), ("—", True), ("日", False), ("5", False)]
)
def test_it_says_which_characters_it_reads(char: str, reads: bool) -> None:
    assert FRONT.reads(char) is reads


def test_a_lexicon_of_other_bytes_raises_nothing() -> None:
    assert PhoneFront(b"hello \xff\xfe\n", Letters({})).read("Hello.") == "\ufffd\ufffd ."
