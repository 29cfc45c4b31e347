"""A synthetic corpus of weakly labelled short texts: made by a grammar, about nothing that happened.

Four topics (the classes), 2000 training, 200 validation and 500 test texts, twelve keyword rules as labelling
functions. It is **frozen**: the commit that added it chose it once, a test holds its hash, and no result of a
meta-learning method was looked at. What was asked of it, and why:

- **Ambiguity that words alone leave.** A content word comes from the text's own topic with probability OWN, from one of
  the three others with OTHER, else from words that all share, and a few words stand in two topics ("stock", "bank").
  A linear bag-of-words model that is trained on the 2000 clean labels gets 85 to 95 % of the test texts right, so that
  there is both room between weak and clean training and a limit below 100 %.
- **Errors that are systematic.** The functions are keyword rules, as WRENCH's mostly are: their errors go with words.
  Independent errors would average out in plain training, and would flatter every method alike.
- **A majority vote that is right for 60 to 75 % of the texts it covers**, as with the harder sets of WRENCH. Each class
  has a function of topical words, one of ambiguous words, and a careless one that takes a common word for a sign of it.

OWN and OTHER were set by these two percentages alone, the fourth pair tried; what came out is 89 % (logistic regression
on word counts) and 62.8 %. Of the training texts 93.3 % are covered, and on 52.3 % two votes differ. Coverage and
accuracy of the functions there, in percent, which a test holds (their words stand in `FUNCTIONS`):

    class     topical words    ambiguous words    careless
    travel    14.4   83.3      23.8   37.3        19.6   40.3
    cooking   17.3   85.0      21.2   35.9        13.8   43.8
    health    18.2   80.5      16.6   48.5        14.5   40.0
    finance   16.4   78.4      14.2   58.3        14.2   39.2

The draws use `random.Random(seed).random()` alone, the one stream that Python promises to keep.
"""

import random
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from sama.data.texts.base import ABSTAIN, TextOptions, TextPart, TextSource

SEED = 20231210
SIZES = {"train": 2000, "validation": 200, "test": 500}
OWN, OTHER = 0.58, 0.12  # the rest, 0.30, are words that all topics share
SECOND_CLAUSE = 0.5

# words by part of speech, the frequent ones first; those in two topics are ambiguous on purpose
TOPICS: dict[str, dict[str, str]] = {
    "travel": {
        "noun": "train station hotel bank ticket island luggage ferry menu airport harbour passport guide transfer "
        "tent",
        "verb": "booked boarded visited charged crossed missed packed toured",
        "adjective": "long foreign coastal crowded remote scenic light delayed",
    },
    "cooking": {
        "noun": "soup oven stock kitchen sugar pan recipe diet onion sauce menu market dough spice pepper",
        "verb": "baked stirred tasted chopped mixed served fried peeled",
        "adjective": "fresh salty roasted sweet crisp raw light spicy",
    },
    "health": {
        "noun": "doctor clinic sugar patient diet insurance nurse fever recovery pill surgery check vaccine muscle "
        "pulse",
        "verb": "treated rested examined healed suffered slept measured coughed",
        "adjective": "weak painful healthy chronic pale sore fresh swollen",
    },
    "finance": {
        "noun": "loan bank stock investor insurance budget market transfer tax recovery check dividend broker debt "
        "fund",
        "verb": "invested charged paid borrowed sold saved earned audited",
        "adjective": "big taxable risky quarterly weak costly solvent long",
    },
}
SHARED = {
    "noun": "day people morning house week friend street letter story room child corner question table window",
    "verb": "saw found remembered left wanted changed described mentioned",
    "adjective": "new long big fresh weak quiet small strange",
}
CLAUSES = (
    "the {noun} was {adjective}, and so was the {noun}",
    "we {verb} the {noun} before the {noun}",
    "they {verb} a {adjective} {noun} near the {noun}",
    "nobody {verb} the {noun} because the {noun} was {adjective}",
    "she said that the {noun} and the {noun} were {adjective}",
    "after the {noun} he {verb} the {adjective} {noun}",
    "my {adjective} {noun} {verb} the {noun}",
)
JOINS = (" while ", " but ", " and later ", " although ")

FUNCTIONS: dict[str, tuple[str, str]] = {  # name -> (words, one of which must stand in the text; class)
    "travel_words": ("station hotel island ferry", "travel"),
    "travel_ambiguous": ("bank transfer charged menu", "travel"),
    "travel_careless": ("long week", "travel"),
    "cooking_words": ("soup oven kitchen pan", "cooking"),
    "cooking_ambiguous": ("sugar market diet light", "cooking"),
    "cooking_careless": ("fresh table", "cooking"),
    "health_words": ("doctor clinic patient nurse", "health"),
    "health_ambiguous": ("insurance recovery check rested", "health"),
    "health_careless": ("weak child", "health"),
    "finance_words": ("loan investor budget invested", "finance"),
    "finance_ambiguous": ("stock tax costly paid", "finance"),
    "finance_careless": ("big letter", "finance"),
}


def open_synthetic(options: TextOptions) -> TextSource:
    """The frozen corpus; there is nothing to choose."""
    return generate(SEED, SIZES)


def generate(seed: int, sizes: dict[str, int]) -> TextSource:
    """Texts of classes drawn uniformly, their true classes and the votes of `FUNCTIONS`; no text stands twice."""
    draw = random.Random(seed)
    names = tuple(TOPICS)
    seen: set[str] = set()
    parts = {}
    for part, size in sizes.items():
        texts, label = [], []
        while len(texts) < size:
            topic = int(draw.random() * len(names))
            text = _text(draw, names[topic])
            if text not in seen:
                seen.add(text)
                texts.append(text)
                label.append(topic)
        ids = np.array([f"{part}/{i:05d}" for i in range(size)], dtype=np.str_)
        votes = np.array([_votes(text, names) for text in texts], dtype=np.int64)
        parts[part] = TextPart(ids, tuple(texts), np.array(label, dtype=np.int64), votes)
    return TextSource(names, **parts, functions=tuple(FUNCTIONS))


def _text(draw: random.Random, topic: str) -> str:
    clauses = [_clause(draw, topic)]
    if draw.random() < SECOND_CLAUSE:
        clauses += [JOINS[int(draw.random() * len(JOINS))], _clause(draw, topic)]
    return "".join(clauses)


def _clause(draw: random.Random, topic: str) -> str:
    pieces = CLAUSES[int(draw.random() * len(CLAUSES))].split("{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        kind, rest = piece.split("}")
        filled += [_word(draw, topic, kind), rest]
    return "".join(filled)


def _word(draw: random.Random, topic: str, kind: str) -> str:
    where = draw.random()
    others = [name for name in TOPICS if name != topic]
    if where < OWN:
        words = TOPICS[topic][kind]
    elif where < OWN + OTHER:
        words = TOPICS[others[int(draw.random() * len(others))]][kind]
    else:
        words = SHARED[kind]
    return _frequent_first(draw, words.split())


def _frequent_first(draw: random.Random, words: Sequence[str]) -> str:
    """The word of rank r with probability in proportion to 1 / (r + 3)."""
    up_to = list(accumulate(1.0 / (rank + 3) for rank in range(len(words))))
    return words[min(bisect(up_to, draw.random() * up_to[-1]), len(words) - 1)]


def _votes(text: str, names: Sequence[str]) -> list[int]:
    present = set(text.replace(",", "").split())
    return [names.index(topic) if present & set(words.split()) else ABSTAIN for words, topic in FUNCTIONS.values()]
