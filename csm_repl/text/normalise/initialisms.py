"""Capitals that are said letter by letter."""

from __future__ import annotations

import re

from csm_repl.text.normalise.numbers import spelled
from csm_repl.text.normalise.rule import Rule, word_set

__all__ = ["INITIALISMS", "is_initialism"]

_KNOWN = word_set(
    """
    ABC ABS ACLU AFAIK AFK AI AKA AOL API APR ATM AWOL BA BAE BBC BFF BMI BMW BSA BTW CBS CDC CEO CEST
    CET CFO CIA CIO
    CMO CNN COO CPA CPI CPU CSV CTO DEA DIY DJ DMV DNA DOE DOJ DUI DVD EDT EEG EIN EKG EMT EOD EPA ER ERP
    ESL ESP
    EST ETA EU EUR FAA FAQ FBI FDA FIFO FYI GDP GDPR GIS GMT GPA GPS GPU GUI HBO HIV HOA HQ HR HTML HTTP
    HTTPS IBM
    ICU ID IDE IEEE II IMF IMO IOU IP IPA IPO IQ IRA IRL IRS ISBN ISO ISP IT IV IVF JFK KFC LED LLM LOL
    MBA MIT MLB
    MRI MTV NBA NBC NFL NGO NHL NHS NIH NSA NYC NYU OCD OECD OMG OS PA PBS PC PDF PDT PHP PIN POV PR PS
    PST PTA PTSD
    QA QR RNA ROI RPG RSVP SAT SDK SEO SME SOS SQL SSD SSH SUV TBA TCP TV UCLA UDP UFC UFO UI UK UN UPS
    URL US USA
    USB USD USSR UTC UV UX VIP VPN WHO WWII XML YMCA ABV ADHD AR BIOS BPM CGI CIA CSI DMZ EV FM AM PM GIF
    IMDB IoT
    KGB LCD LGBT LGBTQ MVP NDA NPC NPR OEM OLED PSA RV SEC SPF SSN TLC TNT UAE USPS VA VR WWE AC AD DC HD
    HDMI BC
    BCE CE LP EP CD PG IC OG UHD SD GTA RIP TGIF TTS STT ASR NLP LSTM CNN GAN OCR VAE MIDI PCM RGB CMYK
    DPI FPS
    ETC IE EG
    """
) - {
    # Words as they are read, or too often words in capitals.
    "II", "IV", "IT", "WHO", "PIN", "SAT", "AID", "WWII", "GIF", "BIOS", "MIDI", "AM", "PM", "AD", "RIP",
    "ETC",
    "IE", "EG", "ISO", "AWOL", "LED", "OS", "ER", "AR", "PA", "CE", "OLED", "IRA", "GAN", "VA", "ID",
}  # fmt: skip
_KNOWN_IN_SENTENCES = frozenset({"ID", "ER", "OS", "ISO", "LED", "OLED", "VA", "AM", "PM"})
"""Spelled where they stand alone; as a part of a name they may be a word."""
_NO_VOWELS = re.compile(r"[BCDFGHJKLMNPQRSTVWXZ]{2,5}")
_SOUNDS = word_set(
    "HM HMM HMMM SH SHH SHHH PST PSST BRR BRRR GRR GRRR TSK PFF PFFT ZZZ ZZ MM MMM MMMM NTH VS MR DR ST MRS "
    "MS JR SR "
    "PHD XX XXX XXXX XL XXL LL CC LTD MT FT RD NR LB LBS KM CM MM KG"
)
_ROMAN = re.compile(r"[IVXLCDM]{2,}")
_PLURAL = r"(?P<s>['’]?s)?"
_CAPITALS = re.compile(rf"(?P<letters>[A-Z]{{2,6}}){_PLURAL}(?![\w]|['’][a-rt-zA-RT-Z])")
_DOTTED = re.compile(r"(?:[A-Z]\.){2,7}(?P<s>['’]?s)?(?![\w])|(?:[A-Z]\.){1,6}[A-Z](?![\w.])")
_DEGREE = re.compile(
    r"(?:PhD|Ph\.\s?D\.?|MSc|M\.Sc\.?|BSc|B\.Sc\.?|LLC|MPhil|IoT|DIYs|MBAs)(?P<s>s)?(?![\w])"
)
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
    if not _in_sentence(letters) or (
        _is_shouted(match.string, match.start(), match.end()) and letters not in {"US"}
    ):
        return None
    if letters == "US" and _is_shouted(match.string, match.start(), match.end()):
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
