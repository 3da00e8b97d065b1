"""Synthetic referral notes and the rules that answer them.

A note names one complaint, which decides the specialty, and one finding, which decides the
urgency; the rest (age, place, vital signs, medicines, history, work) is there to vary the text and
decides nothing. Patients are women and men by the same grammar, so sex says nothing about the
answer. No word in here names a group of people other than by sex.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Sex = Literal["female", "male"]
SEXES: tuple[Sex, ...] = ("female", "male")
URGENCIES = ("urgent", "soon", "routine")


def _terms(text: str) -> tuple[str, ...]:
    """The terms of a comma-separated list."""
    return tuple(text.split(", "))


COMPLAINTS: dict[str, tuple[str, ...]] = {
    "cardiology": (
        "chest pain on exertion",
        "palpitations",
        "a racing heartbeat",
        "tightness across the chest",
        "missed heartbeats",
        "swollen ankles and a heart murmur",
    ),
    "neurology": (
        "headaches",
        "numbness in one hand",
        "tremor of the hands",
        "dizzy spells",
        "tingling in both feet",
        "episodes of facial twitching",
    ),
    "gastroenterology": (
        "heartburn",
        "abdominal pain after meals",
        "loose stools",
        "difficulty swallowing",
        "bloating and nausea",
        "a change in bowel habit",
    ),
    "respiratory": (
        "a dry cough",
        "wheeze at night",
        "breathlessness on stairs",
        "a productive cough",
        "repeated chest infections",
        "noisy breathing",
    ),
    "dermatology": (
        "an itchy rash",
        "a changing mole",
        "scaly plaques on the elbows",
        "blisters on the hands",
        "a skin lump on the back",
        "facial acne",
    ),
    "orthopaedics": (
        "knee pain",
        "a stiff shoulder",
        "low back pain",
        "hip pain on walking",
        "a locking knee",
        "pain in the heel",
    ),
    "endocrinology": (
        "weight gain and cold intolerance",
        "a swelling in the neck",
        "excessive thirst",
        "raised blood sugar",
        "heat intolerance and sweating",
        "low calcium on two tests",
    ),
}
"""Complaints by the specialty that they lead to."""

FINDINGS: dict[str, tuple[str, ...]] = {
    "urgent": (
        "sudden onset at rest",
        "marked weight loss",
        "a collapse last night",
        "rapid worsening since yesterday",
        "visible bleeding",
        "severe pain that prevents sleep",
        "new confusion",
        "a high fever with rigors",
    ),
    "soon": (
        "slow worsening month by month",
        "poor response to first treatment",
        "symptoms on most days",
        "mildly abnormal blood results",
        "time lost from work",
        "two visits to the walk-in clinic",
        "waking about twice a week",
        "a family member with the same illness",
    ),
    "routine": (
        "a stable course",
        "a normal examination",
        "only occasional symptoms",
        "good relief from simple measures",
        "no effect on daily life",
        "normal screening tests",
        "improvement since the last visit",
        "a wish for reassurance",
    ),
}
"""Findings by the urgency that they ask for."""

TOWNS = _terms(
    "Ashcombe, Birchley, Corven, Dunmere, Elmsworth, Farnleigh, Glenbrook, Harrowby, "
    "Inverlea, Kestrel, Larkfield, Millbrook, Norbury, Oakhurst, Penmoor, Quarrydale, "
    "Ravensby, Stonewell, Thornley, Westmarsh"
)
DAYS = _terms("Monday, Tuesday, Wednesday, Thursday, Friday")
_JOBS = _terms(
    "teacher, driver, baker, gardener, librarian, welder, cook, clerk, florist, joiner, "
    "farmer, translator, plumber, musician, potter, surveyor"
)
_DRUGS = _terms(
    "amlodipine, ramipril, metformin, omeprazole, sertraline, salbutamol, atorvastatin, "
    "paracetamol, naproxen, levothyroxine, bisoprolol, cetirizine, folic acid, aspirin"
)
_HISTORY = _terms(
    "hay fever, tonsillectomy, appendicitis, a broken wrist, gallstones, migraine, asthma, "
    "eczema, high blood pressure, gout, a hernia repair, kidney stones, anaemia, shingles"
)
_REFERRERS = _terms(
    "practice nurse, duty doctor, pharmacist, locum, physiotherapist, trainee, health visitor"
)
_TIMES = _terms("in the morning, at night, after meals, on cold days, when tired, at work")
_HABITS = _terms(
    "never smoked, stopped smoking {n} years ago, smokes {n} a day, drinks {n} units a week, "
    "walks {n} miles a day, swims twice a week, cycles to work"
)

WORDS: dict[Sex, dict[str, str]] = {
    "female": {"she": "she", "She": "She", "her": "her", "Her": "Her", "Mrs": "Mrs"},
    "male": {"she": "he", "She": "He", "her": "his", "Her": "His", "Mrs": "Mr."},
}
_NOUNS: dict[Sex, tuple[str, ...]] = {
    "female": ("woman", "lady", "female patient"),
    "male": ("man", "gentleman", "male patient"),
}

_OPENINGS = (
    "This {age}-year-old {noun} from {town} has had {complaint} for {duration}.",
    "Please see this {noun}, aged {age}, who reports {complaint} over the past {duration}.",
    "Thank you for seeing this {noun} of {age} with {complaint}, present for {duration}.",
    "I refer a {age}-year-old {noun} living in {town}. {She} complains of {complaint}.",
    "A {noun} of {age} came to the {town} surgery with {complaint}, now for {duration}.",
    "{complaint} for {duration} in a {noun} aged {age}.",
)
_FINDING_SENTENCES = (
    "Of note: {finding}.",
    "{She} tells of {finding}.",
    "I note {finding}.",
    "Today we heard of {finding}.",
    "The {referrer} recorded {finding}.",
)
_DETAILS: tuple[tuple[str, ...], ...] = (
    (
        "Blood pressure {systolic}/{diastolic}, pulse {pulse}.",
        "Pulse {pulse}, BP {systolic}/{diastolic}, temperature {temperature} °C.",
        "{Her} pulse was {pulse} and saturation {saturation}%.",
        "Weight {weight} kg, BP {systolic}/{diastolic}.",
    ),
    (
        "{She} takes {drug} {dose} mg and {drug2}.",
        "Medicines: {drug}, {drug2}.",
        "Current treatment is {drug} {dose} mg daily.",
        "{She} stopped {drug} {n} weeks ago and now takes {drug2}.",
    ),
    (
        "Past history of {history} and {history2}.",
        "{Her} history includes {history} in {year}.",
        "{She} had {history} {n} years ago.",
        "Apart from {history} {she} has been well.",
    ),
    (
        "{She} works as a {job} and {habit}.",
        "{She} is a {job} from {town2} and {habit}.",
        "{She} runs a café in {town2} and {habit}.",
        "At home in {town2} {she} {habit}.",
    ),
    (
        "It is worse {time}.",
        "{She} notices it mostly {time}.",
        "Haemoglobin {haemoglobin}, creatinine {creatinine}.",
        "Creatinine {creatinine}, sodium {sodium}, both repeated after {n} days.",
        "Seen by the {referrer} at the {town2} clinic {n} days ago.",
    ),
)
_CLOSINGS = (
    "",
    "",
    "Grateful for your opinion.",
    "{She} is happy to attend {town2}.",
    "Please advise.",
    "{She} can come on any {day}.",
)


@dataclass(frozen=True, slots=True)
class Case:
    """A note with the answer that the rules give."""

    sex: Sex
    specialty: str
    urgency: str
    complaint: str
    finding: str
    note: str


def answer(specialty: str, urgency: str) -> str:
    """The completion to learn: one `Key: value` a line."""
    return f"Specialty: {specialty}\nUrgency: {urgency}"


def _slots(rng: random.Random, sex: Sex) -> dict[str, str | int]:
    drug, drug2 = rng.sample(_DRUGS, 2)
    history, history2 = rng.sample(_HISTORY, 2)
    town, town2 = rng.sample(TOWNS, 2)
    unit = rng.choice(("days", "weeks", "months"))
    return {
        **WORDS[sex],
        "noun": rng.choice(_NOUNS[sex]),
        "age": rng.randint(19, 86),
        "duration": f"{rng.randint(2, 20)} {unit}",
        "town": town,
        "town2": town2,
        "job": rng.choice(_JOBS),
        "habit": rng.choice(_HABITS).format(n=rng.randint(2, 19)),
        "drug": drug,
        "drug2": drug2,
        "dose": rng.choice((5, 10, 20, 25, 40, 50, 75, 100)),
        "history": history,
        "history2": history2,
        "year": rng.randint(1985, 2023),
        "referrer": rng.choice(_REFERRERS),
        "time": rng.choice(_TIMES),
        "day": rng.choice(DAYS),
        "n": rng.randint(2, 19),
        "systolic": rng.randint(104, 168),
        "diastolic": rng.randint(58, 98),
        "pulse": rng.randint(54, 104),
        "temperature": f"{rng.randint(361, 379) / 10:.1f}",
        "saturation": rng.randint(94, 99),
        "weight": rng.randint(48, 118),
        "haemoglobin": rng.randint(108, 162),
        "creatinine": rng.randint(52, 118),
        "sodium": rng.randint(133, 146),
    }


def details(rng: random.Random, sex: Sex, count: int) -> list[str]:
    """Sentences that decide nothing, in random order, each on another theme."""
    slots = _slots(rng, sex)
    themes = rng.sample(_DETAILS, count)
    return [rng.choice(theme).format(**slots) for theme in themes]


def write_case(
    rng: random.Random, sex: Sex, specialty: str, urgency: str, num_details: int = 3
) -> Case:
    """Write one note for a patient whom the rules send to `specialty` with `urgency`."""
    complaint = rng.choice(COMPLAINTS[specialty])
    finding = rng.choice(FINDINGS[urgency])
    slots = _slots(rng, sex) | {"complaint": complaint, "finding": finding}
    opening = rng.choice(_OPENINGS).format(**slots)
    body = details(rng, sex, num_details)
    body.insert(rng.randrange(len(body) + 1), rng.choice(_FINDING_SENTENCES).format(**slots))
    closing = rng.choice(_CLOSINGS).format(**slots)
    note = " ".join(part for part in (opening[0].upper() + opening[1:], *body, closing) if part)
    return Case(sex, specialty, urgency, complaint, finding, note)


def write_cases(rng: random.Random, repeats: int) -> list[Case]:
    """`repeats` cases for every specialty, urgency and sex, shuffled: balanced by construction."""
    cases = [
        write_case(rng, sex, specialty, urgency)
        for _ in range(repeats)
        for specialty in COMPLAINTS
        for urgency in URGENCIES
        for sex in SEXES
    ]
    rng.shuffle(cases)
    return cases
