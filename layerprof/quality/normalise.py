"""Text -> comparable text, by fixed rules with a version, so that rates of two runs mean the same.

`words` is for word error rates, `evalai` for VQA accuracy (the rules of the VQA challenge's evaluation), `letter` for
multiple choice. A rule that changes gets a new id, and `rules` gives the ids for a run to keep.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

WORDS_ID = "words-1"
VQA_WORDS_ID = "words-vqa-1"
EVALAI_ID = "evalai-1"
LETTER_ID = "letter-1"

_COUNTED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {word: str(value) for value, word in enumerate(_COUNTED)} | {"none": "0"}
ARTICLES = frozenset({"a", "an", "the"})

# Most special first: `can't` must not become `ca not`.
EXPANSIONS = (
    ("won't", "will not"),
    ("can't", "can not"),
    ("let's", "let us"),
    ("n't", " not"),
    ("'re", " are"),
    ("'s", " is"),
    ("'d", " would"),
    ("'ll", " will"),
    ("'t", " not"),
    ("'ve", " have"),
    ("'m", " am"),
)
APOSTROPHES = str.maketrans("\u2018\u2019\u02bc\u2032", "''''")


def rules(metric: str | None) -> dict[str, str]:
    """Return the ids of the rules by which rates were made: of `wer`, and of the task metric under its name.

    `metric` is the dataset's, as `wer.score` takes it; None gives the id of the word error rates alone.
    """
    found = {"wer": VQA_WORDS_ID if metric == "vqa_accuracy" else WORDS_ID}
    if metric == "vqa_accuracy":
        found[metric] = EVALAI_ID
    elif metric == "exact_match":
        found[metric] = LETTER_ID
    return found


def words(text: str, *, vqa: bool = False) -> str:
    """Return text ready for counting words: NFKC, lower case, contractions written out, no punctuation, single spaces.

    With `vqa`, number words up to ten become digits and articles go, as the VQA evaluation does it (not for multiple
    choice, where `a` is an answer).
    """
    text = unicodedata.normalize("NFKC", text.translate(APOSTROPHES)).lower()
    for short, long in EXPANSIONS:
        text = text.replace(short, long)
    text = "".join(character for character in text if not unicodedata.category(character).startswith("P"))
    split = text.split()
    if vqa:
        split = [NUMBERS.get(word, word) for word in split if word not in ARTICLES]
    return " ".join(split)


# --- VQA accuracy -----------------------------------------------------------------------------------------------

# Contractions that the evaluation accepts with one apostrophe missing.
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()  # noqa: SIM905 - a list literal would take sixty lines


def _one_apostrophe_less(word: str) -> list[str]:
    return [word[:place] + word[place + 1 :] for place, character in enumerate(word) if character == "'"]


CONTRACTIONS = {short: word for word in _CONTRACTIONS for short in _one_apostrophe_less(word)}
CONTRACTIONS["somebody'd"] = "somebodyd"  # as the evaluation has it

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_LONE_PERIOD = re.compile(r"\.(?!\d)")


def evalai(text: str) -> str:
    """Return an answer as the VQA challenge's evaluation compares it.

    Lower case; commas and question marks go, possessives are split off; other punctuation goes where it stands next to
    a space and becomes a space elsewhere; periods stay before digits only; number words become digits, articles go, and
    contractions get their apostrophes. Source: the answer processor of the VQA and TextVQA evaluations.
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    cleaned = text
    for mark in PUNCTUATION:
        beside_space = mark + " " in text or " " + mark in text
        cleaned = cleaned.replace(mark, "" if beside_space else " ")
    cleaned = _LONE_PERIOD.sub("", cleaned)
    numbered = (NUMBERS.get(word, word) for word in cleaned.split())
    return " ".join(CONTRACTIONS.get(word, word) for word in numbered if word not in ARTICLES)


# --- multiple choice --------------------------------------------------------------------------------------------

_ALONE = re.compile(r"\W*([A-Za-z])\W*")
_LEADING = re.compile(r"[\s(\[\"'*]*([A-Za-z])\s*[.):,\]]")
# A small letter counts only where nothing follows: "the answer is a red circle" names no option.
_STATED = re.compile(
    r"\b(?i:answer|option|choice)\b(?i:\s+(?:is|would be))?\s*[:=]?\s*(?i:option\s+)?[(\[\"'*]*"
    r"(?:([A-Z])\b|([a-z])(?=\s*(?:[).,\]]|$)))"
)
_STANDING = re.compile(r"\(([A-Z])\)|\b([B-HJ-Z])\b|\b(A)(?=\s*(?:[,/.;:]|$|or\b|and\b))")


def letter(text: str, choices: Sequence[str] = ()) -> str | None:
    """Return the option letter that an answer names, None when it names none or more than one.

    Read in this order: a letter alone (`B`, `b.`), in front (`B. red`, `(B) red`), stated (`the answer is B`), the text
    of one choice, one capital standing by itself (`A` and `I` with care: they are words too).
    """
    for pattern in (_ALONE.fullmatch, _LEADING.match, _STATED.search):
        found = pattern(text)
        named = found and next(group for group in found.groups() if group)
        if named and _plausible(named, choices):
            return named.upper()
    plain = words(text)
    same = [index for index, choice in enumerate(choices) if plain and words(choice) == plain]
    if same:
        return chr(ord("A") + same[0])
    standing = {named for groups in _STANDING.findall(text) for named in groups if named and _plausible(named, choices)}
    return standing.pop() if len(standing) == 1 and not re.search(r"\bnot\b", text, re.I) else None


def _plausible(named: str, choices: Sequence[str]) -> bool:
    return not choices or ord(named.upper()) - ord("A") < len(choices)
