# SPDX-License-Identifier: Apache-2.0
"""Finds labels of one side of the body by name or terminology: mirroring would turn one into the other."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from barl.project.labels import Label

# The words for left and right in the languages of many clinics, as whole words of a name.
_LEFT = {
    *("left", "lt", "lh", "sin", "sinister", "sinistra", "sinistrum", "sinistro", "links", "linke", "linker", "linkes"),
    *("li", "gauche", "izq", "izquierda", "izquierdo", "esquerda", "esquerdo", "esq", "vanster", "venstre", "lewy"),
    *("lewa", "lewe", "левый", "левая", "левое", "sol", "αριστερα", "αριστερο", "levy", "leva", "balra", "bal"),
}
_RIGHT = {
    *("right", "rt", "rh", "dex", "dexter", "dextra", "dextrum", "destra", "destro", "rechts", "rechte", "rechter"),
    *("rechtes", "re", "droit", "droite", "der", "derecha", "derecho", "direita", "direito", "dir", "hoger", "hoyre"),
    *("hojre", "prawy", "prawa", "prawe", "правый", "правая", "правое", "sag", "δεξια", "δεξι", "pravy", "prava"),
    *("jobbra", "jobb"),
}
# Words too short or too common to count alone: only if another label of the table is their counterpart.
_WEAK = {"l", "r", "li", "re", "lt", "rt", "lh", "rh", "sin", "dex", "der", "dir", "sol", "sag", "bal", "d", "s", "g"}
_WEAK_PAIRS = {"l": "r", "s": "d", "g": "d", "lh": "rh", "lt": "rt", "li": "re", "sin": "dex", "sol": "sag"}
_CHARACTERS = ("左", "右", "왼", "오른", "يسار", "يمين")
# Concepts of SNOMED CT that DICOM uses as modifiers: left and right.
_CODES = {"7771000", "24028007"}


def sided_values(labels: Sequence[Label]) -> list[int]:
    """The values of the labels that are one of a left/right pair, from their names and terminology."""
    words = {label.value: _words(label.name) for label in labels}
    return [
        label.value
        for label in labels
        if _has_code(label) or _is_strong(words[label.value], label.name) or _has_counterpart(label.value, words)
    ]


def with_sides(labels: Sequence[Label]) -> list[Label]:
    """The label table with its left/right pairs marked as lateral, but for those that a person has said are not."""
    sided = sided_values(labels)
    return [
        replace(label, lateral=not label.not_lateral and (label.lateral or label.value in sided)) for label in labels
    ]


def _has_code(label: Label) -> bool:
    modifier = label.terminology.modifier if label.terminology else None
    return modifier is not None and modifier.value in _CODES


def _is_strong(words: list[str], name: str) -> bool:
    if any(character in name for character in _CHARACTERS):
        return True
    return any(word in (_LEFT | _RIGHT) and word not in _WEAK for word in words)


def _has_counterpart(value: int, words: dict[int, list[str]]) -> bool:
    """Whether another name differs in nothing but a weak word for the other side."""
    others = [sorted(other) for key, other in words.items() if key != value]
    own = words[value]
    for place, word in enumerate(own):
        for left, right in _WEAK_PAIRS.items():
            if word in (left, right):
                swapped = [*own[:place], right if word == left else left, *own[place + 1 :]]
                if sorted(swapped) in others:
                    return True
    return False


def _words(name: str) -> list[str]:
    """The words of a name in lower case, without accents; ``KidneyLeft`` and ``kidney_L`` are two words each."""
    spaced = re.sub(r"(?<=[a-zà-ÿ])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    plain = unicodedata.normalize("NFKD", spaced).replace("ø", "o").replace("Ø", "O").replace("ł", "l")
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter)).casefold()
    parts = re.findall(r"[^\W_]+", plain)
    # "left2" says a side, "L2" is a vertebra.
    return [letters if len(letters := part.strip("0123456789")) > 1 else part for part in parts]
