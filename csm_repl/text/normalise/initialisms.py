"""Capitals that are said letter by letter."""

from __future__ import annotations

import re

from csm_repl.text.normalise.numbers import spelled
from csm_repl.text.normalise.rule import Rule, word_before, word_set

__all__ = ["INITIALISMS", "is_initialism"]

_KNOWN = word_set(
    """
    ABC ABS ABV AC ACLU ADHD AFAIK AFK AI AKA AOL API APR ASR ATM BA BAE BBC BC BCE BFF BMI BMW BPM BSA
    BTW CBS CD CDC CEO CEST CET CFO CGI CIA CIO CMO CMYK CNN COO CPA CPI CPU CSI CSV CTO DC DEA DIY DJ DMV
    DMZ DNA DOE DOJ DPI DUI DVD EDT EEG EIN EKG EMT EOD EP EPA ERP ESL ESP EST ETA EU EUR EV FAA FAQ FBI
    FDA FIFO FM FPS FYI GDP GDPR GIS GMT GPA GPS GPU GTA GUI HBO HD HDMI HIV HOA HQ HR HTML HTTP HTTPS IBM
    IC ICU IDE IEEE IMDB IMF IMO IOU IP IPA IPO IQ IRL IRS ISBN ISP IVF IoT JFK KFC KGB LCD LGBT LGBTQ LLM
    LOL LP LSTM MBA MIT MLB MRI MTV MVP NBA NBC NDA NFL NGO NHL NHS NIH NLP NPC NPR NSA NYC NYU OCD OCR
    OECD OEM OG OMG PBS PC PCM PDF PDT PG PHP POV PR PS PSA PST PTA PTSD QA QR RGB RNA ROI RPG RSVP RV SD
    SDK SEC SEO SME SOS SPF SQL SSD SSH SSN STT SUV TBA TCP TGIF TLC TNT TTS TV UAE UCLA UDP UFC UFO UHD
    UI UK UN UPS URL US USA USB USD USPS USSR UTC UV UX VAE VIP VPN VR WWE XML YMCA
    """
)
_KNOWN_IN_SENTENCES = word_set("ID ER OS ISO LED OLED VA AM PM")
"""Spelled where they stand alone; as a part of a name they may be a word."""
_NO_VOWELS = re.compile(r"[BCDFGHJKLMNPQRSTVWXZ]{2,5}")
_SOUNDS = word_set(
    "HM HMM HMMM SH SHH SHHH PSST BRR BRRR GRR GRRR TSK PFF PFFT ZZZ ZZ MM MMM MMMM NTH VS MR DR ST MRS MS "
    "JR SR PHD XX XXX XXXX XL XXL LL CC LTD MT FT RD NR LB LBS KM CM KG"
)
_PLURAL = r"(?P<s>['’]?s)?"
_CAPITALS = re.compile(rf"(?P<letters>[A-Z]{{2,6}}){_PLURAL}(?![\w]|['’][a-rt-zA-RT-Z])")
_DOTTED = re.compile(r"(?:[A-Z]\.){2,7}(?P<s>['’]?s)?(?![\w])|(?:[A-Z]\.){1,6}[A-Z](?![\w.])")
_DEGREE = re.compile(
    r"(?:PhD|Ph\.\s?D\.?|MSc|M\.Sc\.?|BSc|B\.Sc\.?|LLC|MPhil|IoT|DIYs|MBAs)(?P<s>s)?(?![\w])"
)
_NUMERAL = re.compile(r"(?=[IVXL]{3})(?:XL|L?X{0,3})(?:IX|IV|V?I{0,3})")
"""Said as a number where it follows a name, and left as typed elsewhere."""
_SHOUT_WORD = re.compile(r"[A-Z]{2,}(?:['’][A-Z]+)?")
_NEIGHBOURS = 24


def is_initialism(letters: str) -> bool:
    """Whether capitals are spelled wherever they stand."""
    if letters in _KNOWN:
        return True
    return bool(_NO_VOWELS.fullmatch(letters)) and letters not in _SOUNDS


def _in_sentence(letters: str) -> bool:
    return letters in _KNOWN_IN_SENTENCES or (is_initialism(letters) and not letters.startswith("XXX"))


def _is_shouted(text: str, start: int, end: int) -> bool:
    """Whether a word beside it is in capitals too and no initialism."""
    near = (
        *re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)?", text[max(0, start - _NEIGHBOURS) : start])[-1:],
        *re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)?", text[end : end + _NEIGHBOURS])[:1],
    )
    return any(_SHOUT_WORD.fullmatch(word) and not _in_sentence(word) for word in near)


def _say_capitals(match: re.Match[str]) -> str | None:
    letters, tail = match["letters"], match["s"] or ""
    if not _in_sentence(letters) or _is_shouted(match.string, match.start(), match.end()):
        return None
    if _NUMERAL.fullmatch(letters) or (letters == "AM" and word_before(match) == "I"):
        return None
    return spelled(letters) + tail


def _say_dotted(match: re.Match[str]) -> str:
    letters = re.sub(r"[^A-Z]", "", match[0])
    tail = match["s"] or ""
    if tail:
        return spelled(letters) + tail
    # The last point also ends the sentence where a capital follows that begins a usual first word.
    rest = match.string[match.end() : match.end() + 24]
    closes = match[0].endswith(".") and (not rest.strip() or _BEGINS.match(rest) is not None)
    return spelled(letters) + ("." if closes else "")


_BEGINS = re.compile(
    r"[\"'”’)]{0,2}(?:\s*\Z|\s+[\"'“‘(]?(?:The|A|An|I|It|He|She|We|They|You|This|That|These|Those|But|And|So|If|When|"
    r"What|Why|How|Who|Where|In|On|At|Then|There|My|Our|His|Her|Its|Their|Yes|No|Not|Is|Was|Are|Do|Did|Now|For|After)\b)"
)


def _say_degree(match: re.Match[str]) -> str:
    letters = re.sub(r"[\W]", "", match[0]).removesuffix("s" if match["s"] else "")
    return spelled(letters) + (match["s"] or "")


INITIALISMS = (Rule(_DEGREE, _say_degree), Rule(_DOTTED, _say_dotted), Rule(_CAPITALS, _say_capitals))
