"""Which rule applies to which series of a study: a pure function of facts, in three-valued logic.

A rule's answer is strong Kleene logic (Kleene 1952, §64) over its clauses: a fact that is not known makes a clause
unknown; one definite no makes the whole no; an alternative that is yes makes the whole yes. Before a study has settled
only yes is definite, everything else may still change by what arrives and is `pending`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from config.conditions import NOBODY, Answer, Condition, Equals, answer, is_number, phrase
from config.rules import Rule

Facts = Mapping[str, Any]
"""What is known of a series (`dicom_io.series.understand`), with `id` and `received` (ISO 8601, UTC) beside it."""

SERIES_MAX = 150
"""Series of one study that are judged; more are a fault of the sender, and the work grows with their square."""
GOT_MAX = 128
"""Characters of a fact that a clause repeats."""

CLAUSES_SHOWN_MAX = 5
"""Clauses that the fault of a rule's test repeats."""

PARALLEL_COSINE = 0.999
"""Slice normals closer than 2.6° count as parallel."""
ROUNDING_MM = 0.01
"""Positions in headers are rounded."""

WHEN_INCOMPLETE = {"run": Answer.YES, "hold": Answer.UNKNOWN, "drop": Answer.NO}
"""What a series that never became whole answers, by the rule's `incomplete`."""


class Clause(TypedDict):
    """One question a rule asked, as `tracerd rules explain` prints it.

    series : id of the series that was asked, None where the question is about the study
    got : what the answer was read from
    """

    clause: str
    series: Any
    got: Any
    answer: Answer


@dataclass(frozen=True, slots=True)
class Decision:
    """What one rule says about a study.

    verdict : yes = run; unknown = hold for a person; no = nothing to do
    pending : the verdict is unknown only because more may arrive; nothing is to be held yet
    reason : why, in words
    clauses : every question the rule asked, of every series
    inputs : {slot: series id} of each job; a required slot is absent where nothing arrived for it (verdict unknown)
    """

    rule: str
    verdict: Answer
    pending: bool
    reason: str
    clauses: tuple[Clause, ...]
    inputs: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A series asked for one slot."""

    facts: Facts
    clauses: tuple[Clause, ...]

    @property
    def answer(self) -> Answer:
        return min(clause["answer"] for clause in self.clauses)

    @property
    def doubts(self) -> tuple[str, ...]:
        return tuple(f"unknown: {each['clause']}" for each in self.clauses if each["answer"] is Answer.UNKNOWN)


@dataclass(frozen=True, slots=True)
class _Filling:
    """What one slot of a job gets: a series or nothing, how sure that is, and what keeps it from being sure."""

    answer: Answer
    series: Facts | None
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Job:
    """A series of the first slot with the best series for each other slot."""

    slots: Mapping[str, _Filling]
    rank: tuple[Any, ...]

    @property
    def answer(self) -> Answer:
        return min(filling.answer for filling in self.slots.values())

    @property
    def inputs(self) -> dict[str, Any]:
        return {slot: each.series.get("id") for slot, each in self.slots.items() if each.series is not None}


def decide(rules: Sequence[Rule], study: Mapping[str, Any]) -> list[Decision]:
    """Ask every rule about a study.

    study : {"series": [Facts, …], "settled": bool}; settled = nothing more is expected

    Returns
    -------
    One decision per rule, in the order of the rules; two for a rule with `choose: all` where some series are sure and
    others are not, so that each decision holds or runs all its jobs. The order of the series has no influence.
    """
    series = sorted(study["series"], key=_age)
    return [made for rule in rules for made in _Judge(rule, series, settled=study.get("settled") is True).decisions()]


def run_tests(rules: Sequence[Rule]) -> list[str]:
    """Run the rules' own tests; one sentence for each that comes out differently, none when all is well.

    A test's series are complete unless they say otherwise, and each is newer than the ones above it.
    """
    faults = []
    for rule in rules:
        for test in rule.tests:
            series = [
                {"id": i, "received": f"{i:06d}", "complete": True, **facts} for i, facts in enumerate(test.series)
            ]
            decisions = decide([rule], {"series": series, "settled": True})
            said = max(decisions, key=lambda decision: decision.verdict)
            if said.verdict != test.expect:
                words = f"expected {test.expect}, got {said.verdict}{_because(said)}"
                faults.append(f"rule {rule.name!r}, test {test.name!r}: {words}")
    return faults


def _because(decision: Decision) -> str:
    """The reason of a decision and the first clauses that answered like it."""
    alike = [each for each in decision.clauses if each["answer"] is decision.verdict and each["series"] is not None]
    shown = [f"{each['clause']} (series {each['series']}: got {each['got']})" for each in alike[:CLAUSES_SHOWN_MAX]]
    return "".join(f"; {words}" for words in (decision.reason, *shown) if words)


@dataclass(frozen=True, slots=True)
class _Judge:
    """One rule and one study, whose series are sorted by age."""

    rule: Rule
    series: Sequence[Facts]
    settled: bool

    def decisions(self) -> list[Decision]:
        if len(self.series) > SERIES_MAX:
            clause = _clause(f"the study has at most {SERIES_MAX} series", None, len(self.series), Answer.UNKNOWN)
            return [self._decision(Answer.UNKNOWN, [f"unknown: {clause['clause']}"], [clause])]
        first, *others = self.rule.inputs
        candidates = {slot: [self._ask(slot, facts) for facts in self.series] for slot in self.rule.inputs}
        clauses = [clause for asked in candidates.values() for candidate in asked for clause in candidate.clauses]
        jobs = []
        for primary in candidates[first]:
            if primary.answer is Answer.NO:
                continue
            slots = {first: _Filling(primary.answer, primary.facts, primary.doubts)}
            for slot in others:
                slots[slot], asked = self._fill(slot, primary.facts, candidates[slot])
                clauses += asked
            jobs.append(_Job(slots, self._rank(primary.facts)))
        return self._pronounce(jobs, clauses)

    def _pronounce(self, jobs: Sequence[_Job], clauses: Sequence[Clause]) -> list[Decision]:
        possible = [job for job in jobs if job.answer is not Answer.NO]
        if not possible:
            missing = [f"no series fits {self.rule.primary}" + ("" if self.settled else " yet")]
            said = Answer.NO if self.settled else Answer.UNKNOWN
            return [self._decision(said, _doubts_of(jobs) or missing, clauses)]
        if self.rule.choose != "all":
            unsure = [job for job in possible if job.answer is Answer.UNKNOWN]
            # While more may come, a rival that is not judged yet may turn out to be the newest or largest.
            rivals = unsure if unsure and not self.settled else possible
            possible = [max(rivals, key=lambda job: (job.answer, job.rank))]
        groups = {said: [job for job in possible if job.answer is said] for said in (Answer.YES, Answer.UNKNOWN)}
        return [self._decision(said, _doubts_of(group), clauses, group) for said, group in groups.items() if group]

    def _decision(
        self, verdict: Answer, reasons: Sequence[str], clauses: Sequence[Clause], jobs: Sequence[_Job] = ()
    ) -> Decision:
        return Decision(
            rule=self.rule.name,
            verdict=verdict,
            pending=verdict is Answer.UNKNOWN and not self.settled,
            reason="; ".join(reasons),
            clauses=tuple(clauses),
            inputs=tuple(job.inputs for job in jobs),
        )

    def _rank(self, facts: Facts) -> tuple[Any, ...]:
        """What `choose` compares; for `all` it decides only among the series for the slots beside the first."""
        slices = facts.get("slices")
        size = slices if self.rule.choose == "largest" and is_number(slices) else 0
        return size, _age(facts)

    def _ask(self, slot: str, facts: Facts) -> _Candidate:
        """Every condition on one series for one slot; none is left out after a no."""
        clauses = []
        for name, condition in self._conditions(slot):
            value = facts.get(name)
            if name == "produced_by":
                value = value or NOBODY
            clauses.append(_clause(f"{slot}.{name} {phrase(condition)}", facts, value, answer(condition, value)))
        return _Candidate(facts, (*clauses, self._ask_completeness(slot, facts)))

    def _conditions(self, slot: str) -> list[tuple[str, Condition]]:
        """The slot's conditions, `when` for the first slot, and that the series is not one of our own."""
        asked = list(self.rule.inputs[slot].conditions.items())
        if slot == self.rule.primary:
            asked += self.rule.when.items()
        if all(name != "produced_by" for name, _ in asked):
            asked.append(("produced_by", Equals(NOBODY)))
        return asked

    def _ask_completeness(self, slot: str, facts: Facts) -> Clause:
        complete = facts.get("complete")
        otherwise = WHEN_INCOMPLETE[self.rule.incomplete] if self.settled else Answer.UNKNOWN
        text = f"{slot} is complete, else {self.rule.incomplete}"
        return _clause(text, facts, complete, Answer.YES if complete is True else otherwise)

    def _fill(self, slot: str, primary: Facts, candidates: Sequence[_Candidate]) -> tuple[_Filling, list[Clause]]:
        """The best series for a slot beside the first, and the questions asked to find it."""
        clauses: list[Clause] = []
        fits = []
        for candidate in candidates:
            if candidate.answer is Answer.NO or candidate.facts is primary:
                continue
            pairing = self._ask_pairing(slot, candidate.facts, primary)
            clauses += pairing
            fit = _Candidate(candidate.facts, (*candidate.clauses, *pairing))
            if fit.answer is not Answer.NO:
                fits.append(fit)
        filling = self._choose(slot, fits)
        found = filling.series.get("id") if filling.series is not None else None
        clauses.append(_clause(f"{self._wanted(slot)}, for this {self.rule.primary}", primary, found, filling.answer))
        return filling, clauses

    def _choose(self, slot: str, fits: Sequence[_Candidate]) -> _Filling:
        best = max(fits, key=lambda fit: (fit.answer, self._rank(fit.facts)), default=None)
        unsure = [fit for fit in fits if fit.answer is Answer.UNKNOWN]
        optional = self.rule.inputs[slot].optional
        if not self.settled and (best is None or unsure):
            doubts = unsure[0].doubts if unsure else (f"no {self._wanted(slot)} has arrived yet",)
            return _Filling(Answer.UNKNOWN, None if best is None else best.facts, doubts)
        if best is not None and not (optional and best.answer is Answer.UNKNOWN):
            return _Filling(best.answer, best.facts, best.doubts)
        if optional:
            return _Filling(Answer.YES, None)
        said = Answer.NO if self.rule.incomplete == "drop" else Answer.UNKNOWN
        return _Filling(said, None, (f"no {self._wanted(slot)} arrived",))

    def _wanted(self, slot: str) -> str:
        pairs_with = self.rule.inputs[slot].pairs_with
        return slot if pairs_with is None else f"{slot} that pairs with {pairs_with}"

    def _ask_pairing(self, slot: str, facts: Facts, primary: Facts) -> tuple[Clause, ...]:
        first = self.rule.inputs[slot].pairs_with
        if first is None:
            return ()
        frame, got = _same_frame_of_reference(facts, primary)
        arriving = not self.settled and facts.get("complete") is not True
        reach = Answer.UNKNOWN if arriving else covers(facts, primary)
        return (
            _clause(f"{slot} shares the frame of reference of {first}", facts, got, frame),
            _clause(f"{slot} covers {first} to half a slice", facts, facts.get("z_range_mm"), reach),
        )


def covers(facts: Facts, other: Facts) -> Answer:
    """Whether a series reaches over all slices of another one of the same frame of reference, to half a slice.

    Both `z_range_mm` lie along their series' own slice normal (the first column of `affine`); where the normals are
    opposite the range is turned round, where they are not parallel the answer is unknown. Without `affine` the normals
    count as equal: the facts of a series hold both or neither. A range that is given as None is no missing fact: the
    slices form no regular grid, as those of a CT localizer, and cover nothing.
    """
    mine, wanted, cosine = facts.get("z_range_mm"), other.get("z_range_mm"), _cosine(facts, other)
    if mine is None and "z_range_mm" in facts:
        return Answer.NO
    if mine is None or wanted is None or abs(cosine) < PARALLEL_COSINE:
        return Answer.UNKNOWN
    low, high = mine if cosine > 0 else (-mine[1], -mine[0])
    spacing = other.get("spacing_mm")
    slack = ROUNDING_MM + (0.0 if spacing is None else spacing[0] / 2)
    if low <= wanted[0] + slack and high >= wanted[1] - slack:
        return Answer.YES
    return Answer.UNKNOWN if spacing is None else Answer.NO


def _cosine(facts: Facts, other: Facts) -> float:
    """Of the angle between the slice normals."""
    if facts.get("affine") is None or other.get("affine") is None:
        return 1.0
    one, two = ([float(row[0]) for row in each["affine"][:3]] for each in (facts, other))
    return sum(a * b for a, b in zip(one, two, strict=True)) / (math.hypot(*one) * math.hypot(*two))


def _same_frame_of_reference(facts: Facts, other: Facts) -> tuple[Answer, str | None]:
    """The answer, and what a clause shows of it: never the UIDs."""
    mine, wanted = facts.get("frame_of_reference_uid"), other.get("frame_of_reference_uid")
    if not mine or not wanted:
        return Answer.UNKNOWN, None
    return (Answer.YES, "the same") if mine == wanted else (Answer.NO, "another")


def _age(facts: Facts) -> tuple[str, str, str]:
    """Sorts oldest first; ISO 8601 of one time zone sorts as text, the rest breaks ties in one fixed way."""
    return str(facts.get("received") or ""), str(facts.get("series_uid") or ""), str(facts.get("id"))


def _clause(text: str, facts: Facts | None, got: Any, said: Answer) -> Clause:
    shown = got[:GOT_MAX] if isinstance(got, str | list) else got
    return Clause(clause=text, series=None if facts is None else facts.get("id"), got=shown, answer=said)


def _doubts_of(jobs: Iterable[_Job]) -> list[str]:
    """What keeps the jobs from being a yes, each thing once."""
    return list(dict.fromkeys(doubt for job in jobs for filling in job.slots.values() for doubt in filling.doubts))
