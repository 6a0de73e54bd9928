"""Text for the corpus: Debian's fortunes, the King James Bible, and everyday sentences from patterns.

Every sentence belongs to the training text or to the held-out one by a hash of its words, so the two
cannot overlap whatever is drawn.
"""

from __future__ import annotations

import hashlib
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["everyday", "fortunes", "is_held_out", "king_james", "sentence_pool"]

FORTUNES = Path("/usr/share/games/fortunes")
_LEFT_OUT = {"art", "ascii-art", "perl", "linuxcookie", "translate-me", "debian-hints", "drugs", "ethnic"}
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_SPEAKABLE = re.compile(r"[A-Za-z][A-Za-z' ,;:-]*[.!?]?")
MIN_WORDS, MAX_WORDS, MAX_CHARACTERS = 1, 14, 80


def is_held_out(text: str) -> bool:
    """Two sentences in a hundred, by their letters alone."""
    letters = re.sub(r"[^a-z]", "", text.lower())
    return int.from_bytes(hashlib.sha256(letters.encode()).digest()[:4], "big") % 50 == 0


def _clean(text: str) -> str | None:
    text = re.sub(r"\s+", " ", text).strip(" -:;,")
    n_words = len(text.split())
    if not _SPEAKABLE.fullmatch(text) or not MIN_WORDS <= n_words <= MAX_WORDS or len(text) > MAX_CHARACTERS:
        return None
    # Initials, headings and shouted words are read letter by letter or not at all alike.
    if re.search(r"\b[A-Z]{2,}\b|\b[B-HJ-Z]\b|--|' | '|\b[^aeiouyAEIOUY' ]{5,}\b", text):
        return None
    return text


def fortunes() -> Iterator[str]:
    """Sentences of the fortune files."""
    for path in sorted(FORTUNES.iterdir()):
        if path.suffix or path.name in _LEFT_OUT:
            continue
        for cookie in path.read_text(encoding="utf-8", errors="replace").split("\n%\n"):
            # What follows a dash at the beginning of a line is the source of a quotation.
            body = re.split(r"\n\s*--", cookie)[0]
            for sentence in _SENTENCE_END.split(body.replace("\n", " ").replace('"', "")):
                text = _clean(sentence)
                if text and text[-1] in ".!?" and text[0].isupper():
                    yield text


def king_james() -> Iterator[str]:
    """Sentences and clauses of the Bible, as the `bible` program prints them."""
    verses = subprocess.run(
        ["bible", "-f", "gen1:1-rev22:21"], capture_output=True, text=True, check=True
    ).stdout
    for line in verses.splitlines():
        verse = line.partition(" ")[2]
        for clause in re.split(r"(?<=[.!?:;])\s+", verse):
            text = _clean(clause.rstrip(":;,") + ("" if clause.rstrip()[-1:] in ".!?" else "."))
            # Lists of names follow no rules of reading.
            if text and len(re.findall(r" [A-Z]", text)) <= 2:
                yield text[0].upper() + text[1:]


_PHRASES = """
Hello.|Hello there.|Hi.|Good morning.|Good evening.|Good night.|Yes.|No.|Maybe.|Of course.|Thank you.|Thanks a lot.
You're welcome.|I don't know.|I see.|That's right.|That's wrong.|Really?|Are you sure?|How are you?|I'm fine, thanks.
What's that?|Who's there?|Where are you?|What time is it?|Wait a minute.|Come in.|Sit down.|Look at that.|Listen.
I'm sorry.|Excuse me.|See you later.|See you tomorrow.|Have a nice day.|Take care.|Let's go.|Not yet.|Never mind.
Nice to meet you.|What do you mean?|I think so.|I hope so.|It's me.|Don't worry.|Well, that was easy.|Oh, I remember.
"""
_WORDS = {
    "who": "I|you|we|they|she|he|my brother|my sister|our teacher|the doctor|the children|nobody|everybody|Anna|"
    "Peter|Maria|Tom|Lucy|the captain|the neighbours|a stranger|the old woman|your friend|the driver|the cook",
    "did": "found|lost|bought|sold|saw|wanted|liked|forgot|broke|carried|remembered|painted|washed|hid|stole|built|"
    "opened|closed|cleaned|repaired|borrowed|needed|returned|dropped|moved|counted|described|admired|followed",
    "a": "a|the|this|that|his|her|my|your|our|their|another|every|the other|one|some",
    "adj": "small|big|red|green|blue|yellow|black|white|old|new|strange|heavy|cheap|expensive|beautiful|broken|empty|"
    "quiet|warm|cold|dirty|wooden|golden|funny|useful|dangerous|soft|round|narrow|tall|bright|dark|sweet|simple",
    "thing": "house|table|book|letter|window|garden|bottle|box|picture|clock|boat|bicycle|car|key|coat|hat|lamp|chair|"
    "door|bridge|ticket|camera|kitchen|basket|guitar|phone|computer|mirror|blanket|umbrella|suitcase|engine|"
    "horse|dog|cat|bird|fish|elephant|spider|apple|orange|sandwich|cup of tea|piece of cake|machine|question",
    "place": "in the garden|at the station|near the river|behind the house|on the roof|under the bridge|in the city|at "
    "school|in the forest|on the beach|by the window|next to the church|in the kitchen|at the market|on the "
    "mountain|across the street|in the library|at the airport|on the island|in my room|outside|upstairs|here",
    "when": "yesterday|today|tomorrow|last night|this morning|on Monday|on Friday|last summer|in the winter|at noon|at "
    "midnight|two weeks ago|a long time ago|before dinner|after the storm|in January|in October|every day|again",
    "number": "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fifteen|twenty|thirty five|"
    "forty two|fifty|sixty|ninety nine|a hundred|two hundred|a thousand|seven hundred and six|a million",
    "feel": "happy|tired|hungry|angry|afraid|ready|late|sorry|surprised|busy|sick|proud|lonely|thirsty|worried|bored",
    "verb": "go|come|sleep|run|sing|dance|swim|read|write|speak|listen|wait|work|play|leave|stay|travel|laugh|cry|help",
}
_PATTERNS = (
    "{who} {did} {a} {adj} {thing} {place}.", "{who} {did} {a} {thing} {when}.", "{when}, {who} {did} {a} {adj} {thing}.",
    "did {who} really {verb} {place}?", "why did {who} {verb} {when}?", "could you {verb} {place}, please?",
    "there are {number} {adj} things {place}.", "I have {number} of them, and {who} {did} the rest.",
    "{a} {thing} was {adj} and {adj}.", "where is {a} {adj} {thing}?", "do you want to {verb} {when}?",
    "I am too {feel} to {verb}.", "{who} looked {feel}, so we had to {verb}.", "don't {verb} {place}!",
    "it was {number} o'clock when {who} {did} {a} {thing}.", "would you like to {verb} {place}?",
    "I was {feel} because {who} {did} {a} {thing}.", "please {verb} with me {when}.", "what a {adj} {thing}!",
    "if you {verb} now, you will be {feel}.", "my {thing} is {adj}er than your {thing}.", "{who} will {verb} {when}.",
    "we can {verb} {place}, or we can {verb} {place}.", "nobody {did} {a} {thing}, not even {who}.",
    "have you seen {a} {adj} {thing} {place}?", "{number} and {number} make more than {number}.", "let's {verb} {when}.",
    "the {thing} {place} costs {number} dollars.", "I think {who} {did} it {place}.", "are you {feel}?",
)  # fmt: skip


def everyday(seed: int) -> Iterator[str]:
    """Short phrases and filled patterns, without end."""
    rng = random.Random(seed)
    phrases = [phrase.strip() for phrase in re.split(r"[|\n]", _PHRASES) if phrase.strip()]
    words = {kind: text.split("|") for kind, text in _WORDS.items()}
    while True:
        if rng.random() < 0.1:
            yield rng.choice(phrases)
            continue
        text = re.sub(r"\{(\w+)\}", lambda gap: rng.choice(words[gap[1]]), rng.choice(_PATTERNS))
        text = re.sub(r"eer than", "er than", text)
        yield text[0].upper() + text[1:]


def sentence_pool(n: int, seed: int, *, held_out: bool) -> list[str]:
    """`n` sentences: 45 % fortunes, 30 % Bible, 25 % everyday; distinct but for the short phrases."""
    rng = random.Random(seed)
    pool: list[str] = []
    for source, share in ((fortunes(), 0.45), (king_james(), 0.30)):
        texts = sorted({text for text in source if is_held_out(text) == held_out})
        rng.shuffle(texts)
        pool += texts[: round(n * share)]
    for text in everyday(seed):
        if len(pool) >= n:
            break
        if is_held_out(text) == held_out:
            pool.append(text)
    rng.shuffle(pool)
    return pool
