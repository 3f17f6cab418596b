"""A whole simulated examination: a patient, what the scanner sends of them, and the truth that comes with it.

    fdg, psma      attenuation-corrected PET and CT
    lowcount       the fdg examination of the same seed with a share of its counts, binomially thinned, and its CT
    nac            the fdg examination of the same seed reconstructed without attenuation and scatter correction, no CT
    rb82-rest, rb82-stress     27 frames over the heart and the CT; the same seed is the same patient twice

Body, patient and noise are drawn from generators of their own, so that the patient does not depend on what is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

from engines.contract import Acquisition, Affine, DynamicVolume, Json, LabelMap, Quantity, Volume
from engines.simulation import circulation, dynamic, kinetics, lesions, truth
from engines.simulation.anatomy import Body, Grid, Person, build, whole_body
from engines.simulation.compartments import SCHEDULE, Frame
from engines.simulation.heart import SEGMENTS
from engines.simulation.measurement import Scanner, Sinograms, Timing, counted, measure, pairs_of_slices, thin
from engines.simulation.perfusion import State
from engines.simulation.reconstruction import Method, reconstruct
from engines.simulation.scanners import METHODS, PRESETS
from engines.simulation.shapes import FloatArray
from engines.simulation.uptake import attenuation, ct_noise, hu_map, suv_map

Kind = Literal["fdg", "psma", "rb82-rest", "rb82-stress", "lowcount", "nac"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Tracer = Literal["FDG", "PSMA-11", "PSMA-1007"]
Part = Literal["tracer", "patient", "examination", "counts", "thinning", "CT"]
Progress = Callable[[str, float], None]
"""What is done now, and the share of the whole that is done."""
HALF_LIFE_S: Mapping[str, float] = {"F-18": 6586.2, "Ga-68": 4062.6, "Rb-82": circulation.HALF_LIFE_S}
RADIONUCLIDE: Mapping[Tracer, str] = {"FDG": "F-18", "PSMA-11": "Ga-68", "PSMA-1007": "F-18"}
SHARES = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5)
"""Of the counts in a `lowcount` examination; one of them is drawn."""
SCANS: tuple[State, ...] = get_args(State)
STATES: Mapping[Kind, State] = {"rb82-rest": "rest", "rb82-stress": "stress"}
RB82_METHOD = Method(iterations=2)
REFERENCE: Mapping[Kind, str] = {
    "fdg": "this PET",
    "psma": "this PET",
    "lowcount": "reconstruction of all counts of the same acquisition, SUVbw",
    "nac": "reconstruction of the same counts with attenuation and scatter correction, SUVbw",
    "rb82-rest": "reconstruction of the expected counts of the same acquisition (noise-free data), Bq/mL",
    "rb82-stress": "reconstruction of the expected counts of the same acquisition (noise-free data), Bq/mL",
}
"""What `Study.reference` holds, in words. Never the activity map that was measured."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """A hospital: its scanner, how it examines, and whom.

    activity_mbq_kg : injected, mean over patients
    uptake_min : mean and standard deviation of the wait
    bed_s : each bed position of a whole body
    obesity, prostheses : of `Person.draw`
    rb82_method : reconstruction of dynamic frames
    """

    scanner: Scanner
    method: Method
    activity_mbq_kg: Mapping[Tracer, float] = field(
        default_factory=lambda: {"FDG": 3.5, "PSMA-11": 2.0, "PSMA-1007": 4.0}
    )
    uptake_min: tuple[float, float] = (62.0, 6.0)
    bed_s: float = 120.0
    obesity: float = 0.0
    prostheses: float = 0.02
    rb82_method: Method = RB82_METHOD


SITES: Mapping[str, Site] = {name: Site(scanner=scanner, method=METHODS[name]) for name, scanner in PRESETS.items()}
"""By preset: "small" has voxels of about 5 mm, "standard" of about 3.5 mm."""


@dataclass(frozen=True, eq=False)
class Study:
    """One examination and its truth, all on the grid of the PET but the CT.

    acquisition : what the scanner sends
    organs : labels are Tissue numbers, the tissue most of a voxel is made of
    lesions : labels are rows of facts["lesions"]; a voxel at least half of which is lesion, or the best of a small one
    reference : what a perfect engine returns; REFERENCE says what that is; None where it was not asked for
    maps : "k1", "mbf" [mL/min/g], "k2" [1/min] of Rb-82: means over the voxel with 0 outside the myocardium
    segments : AHA segments of Rb-82
    facts : everything else, ready for JSON
    """

    kind: Kind
    acquisition: Acquisition
    organs: LabelMap
    lesions: LabelMap
    reference: Volume | DynamicVolume | None
    maps: Mapping[str, FloatArray]
    segments: LabelMap | None
    facts: Mapping[str, Json]


def simulate(
    kind: Kind,
    seed: int,
    site: Site | str = "small",
    *,
    with_reference: bool = True,
    share: float | None = None,
    tracer: Tracer | None = None,
    frames: tuple[Frame, ...] = SCHEDULE,
    progress: Progress | None = None,
) -> Study:
    """Examine the patient of a seed.

    site : or the name of one in SITES
    with_reference : also reconstruct the reference where it is not the PET itself
    share : of the counts, `lowcount` only; None = drawn from SHARES
    tracer : `psma` only; None = drawn

    Raises
    ------
    ValueError
        An unknown kind or site, or a share or tracer that the kind does not know.
    """
    asked = _Asked.of(kind, seed, site, with_reference, progress)
    if share is not None and kind != "lowcount":
        raise ValueError(f"share: only a lowcount examination has one, got {share} for {kind}")
    if share is not None and not 0.0 < share <= 1.0:
        raise ValueError(f"share: expected above 0 and at most 1, got {share}")
    made = _dynamic(asked, frames) if kind in STATES else _static(asked, _tracer(kind, seed, tracer), share)
    asked.say("done", 1.0)
    return made


def patient(kind: Kind, seed: int, site: Site | str = "small", *, tracer: Tracer | None = None) -> Patient:
    """Whom `simulate` examines, without the scanner; not of Rb-82. Raises ValueError as `simulate` does."""
    if kind in STATES:
        raise ValueError(f"kind: expected one that is not dynamic, got {kind}")
    return Patient.draw(_Asked.of(kind, seed, site), _tracer(kind, seed, tracer))


def course(kind: Kind, seed: int, site: Site | str = "small") -> kinetics.Course:
    """What Rb-82 does in the patient whom `simulate` examines. Raises ValueError as `simulate` does."""
    if kind not in STATES:
        raise ValueError(f"kind: expected one of {', '.join(STATES)}, got {kind}")
    return _perfused(_Asked.of(kind, seed, site), SCHEDULE)[0]


@dataclass(frozen=True)
class _Asked:
    """What the parts of a simulation all want to know."""

    kind: Kind
    seed: int
    site: Site
    with_reference: bool
    say: Progress

    @classmethod
    def of(
        cls, kind: Kind, seed: int, site: Site | str, with_reference: bool = True, progress: Progress | None = None
    ) -> _Asked:
        """Names resolved; ValueError where they are unknown."""
        if kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind}")
        if isinstance(site, str):
            if site not in SITES:
                raise ValueError(f"site: expected one of {', '.join(SITES)}, got {site}")
            site = SITES[site]
        return cls(kind, seed, site, with_reference, progress or _silent)


def _silent(_what: str, _done: float) -> None:
    """Progress for nobody."""


def _tracer(kind: Kind, seed: int, tracer: Tracer | None) -> Tracer:
    possible: Sequence[Tracer] = ("PSMA-11", "PSMA-1007") if kind == "psma" else ("FDG",)
    if tracer is None:
        return possible[int(_generator(seed, "tracer").integers(len(possible)))]
    if tracer not in possible:
        raise ValueError(f"tracer: expected one of {', '.join(possible)} for {kind}, got {tracer}")
    return tracer


def _generator(seed: int, part: Part, *more: int) -> np.random.Generator:
    """The generator of one part of an examination: drawing more of one part changes no other."""
    return np.random.default_rng([seed, get_args(Part).index(part), *more])


@dataclass(frozen=True)
class _Injection:
    """What was injected, and what an SUV of 1 is when the scan begins [Bq/mL]."""

    tracer: Tracer
    half_life_s: float
    dose_bq: float
    minutes: float
    bqml_per_suv: float

    @classmethod
    def draw(cls, asked: _Asked, person: Person, tracer: Tracer) -> _Injection:
        chance, half_life_s = _generator(asked.seed, "examination"), HALF_LIFE_S[RADIONUCLIDE[tracer]]
        minutes = float(np.clip(chance.normal(*asked.site.uptake_min), 40.0, 150.0))
        spread = float(np.clip(chance.normal(1.0, 0.07), 0.7, 1.3))
        dose_bq = 1e6 * asked.site.activity_mbq_kg[tracer] * person.weight_kg * spread
        left = 0.5 ** (minutes * 60.0 / half_life_s)
        return cls(tracer, half_life_s, dose_bq, minutes, dose_bq * left / (person.weight_kg * 1000.0))


@dataclass(frozen=True, eq=False)
class Patient:
    """Body, lesions and densities on the scanner's fine grid; mu [1/mm] is what 511 keV photons see."""

    body: Body
    grown: truth.Grown
    injection: _Injection
    hu: FloatArray
    mu: FloatArray

    @classmethod
    def draw(cls, asked: _Asked, tracer: Tracer) -> Patient:
        """The patient of a seed."""
        site, rng = asked.site, _generator(asked.seed, "patient")
        person = Person.draw(rng, obesity=site.obesity, prostheses=site.prostheses)
        while tracer != "FDG" and person.sex == "F":
            person = Person.draw(rng, obesity=site.obesity, prostheses=site.prostheses)
        fine = site.scanner.fine
        step = (site.scanner.slice_mm / 2, fine.pixel_mm, fine.pixel_mm)
        body = build(person, whole_body(person, step, fine.pixels, multiple=2), rng)
        spots = lesions.place(body, tracer, rng)
        injection = _Injection.draw(asked, person, tracer)
        suv, labels = lesions.paint(spots, body, suv_map(body, tracer, rng, minutes=injection.minutes))
        hu = lesions.paint_hu(spots, labels, hu_map(body, rng))
        return cls(body, truth.Grown(spots, labels, suv), injection, hu, attenuation(hu))

    @property
    def activity(self) -> FloatArray:
        """Bq/mL when the scan begins, float32 (z, y, x)."""
        return np.asarray(self.grown.suv * np.float32(self.injection.bqml_per_suv))

    @property
    def activity_bq(self) -> float:
        """All that the body holds when the scan begins."""
        return float(self.grown.suv.sum(dtype=np.float64)) * self.injection.bqml_per_suv * self.body.voxel_ml


def _static(asked: _Asked, tracer: Tracer, share: float | None) -> Study:
    kind, seed, site, say = asked.kind, asked.seed, asked.site, asked.say
    say("body", 0.0)
    patient = Patient.draw(asked, tracer)
    body, injection = patient.body, patient.injection
    say("counts", 0.25)
    fraction, activity = _fraction(kind, seed, share), patient.activity
    timing = Timing(site.bed_s, half_life_s=injection.half_life_s)
    full = measure(activity, patient.mu, site.scanner, timing, _generator(seed, "counts"))
    counts = thin(full, fraction, _generator(seed, "thinning")) if fraction < 1.0 else full
    method = replace(site.method, attenuation=False, scatter=False) if kind == "nac" else site.method

    def image(of: Sinograms, how: Method) -> Volume:
        suv = reconstruct(of, site.scanner, how) / np.float32(injection.bqml_per_suv)
        return Volume(suv, _affine(_on_scanner(body.grid)), Quantity.SUVBW)

    say("reconstruction", 0.55)
    pet = image(counts, method)
    reference: Volume | None = pet
    if (counts, method) != (full, site.method):
        say("reference", 0.75)
        reference = image(full, site.method) if asked.with_reference else None
    say("CT", 0.93)
    lesion_map = truth.lesions_on_grid(patient.grown, pet.affine)
    acquisition = replace(
        _acquisition(asked, body.person, injection.dose_bq, tracer=tracer, radionuclide=RADIONUCLIDE[tracer]),
        pet=pet,
        ct=None if kind == "nac" else _ct(body.grid, patient.hu, _generator(seed, "CT")),
        uptake_s=injection.minutes * 60.0,
        frame_duration_s=site.bed_s * fraction,
        attenuation_corrected=kind != "nac",
        truth=lesion_map,
    )
    facts = _facts(asked, acquisition, method, counts.counts) | {
        "age_years": body.person.age_years,
        "beds": site.scanner.beds(len(pet.array)),
        "count_fraction": fraction,
        "bqml_per_suv": injection.bqml_per_suv,
        "activity_in_view_bq": patient.activity_bq,
        "lesions": truth.lesion_table(patient.grown, body, lesion_map, reference),
    }
    return Study(kind, acquisition, truth.organs(body, pet.affine), lesion_map, reference, {}, None, facts)


def _fraction(kind: Kind, seed: int, share: float | None) -> float:
    """The share of the counts that is kept."""
    if kind != "lowcount":
        return 1.0
    return float(_generator(seed, "thinning", 1).choice(SHARES)) if share is None else share


def _acquisition(asked: _Asked, person: Person, dose_bq: float, *, tracer: str, radionuclide: str) -> Acquisition:
    """Who was injected with what; images and times are still to come."""
    return Acquisition(
        pet=None,
        ct=None,
        tracer=tracer,
        radionuclide=radionuclide,
        half_life_s=HALF_LIFE_S[radionuclide],
        dose_bq=dose_bq,
        weight_kg=person.weight_kg,
        height_m=person.height_m,
        sex=person.sex,
        uptake_s=0.0,
        frame_duration_s=0.0,
        seed=asked.seed,
    )


def _perfused(asked: _Asked, frames: tuple[Frame, ...]) -> tuple[kinetics.Course, FloatArray]:
    """Rb-82 in the patient of a seed, and the densities of the chest."""
    site, rng = asked.site, _generator(asked.seed, "patient")
    person = Person.draw(rng, obesity=site.obesity, prostheses=site.prostheses)
    body = build(person, dynamic.chest_grid(person, dynamic.cardiac(site.scanner)), rng)
    hu = hu_map(body, rng)
    rubidium, chance = kinetics.Patient.draw(person, rng), _generator(asked.seed, "examination")
    return kinetics.course(body, rubidium, STATES[asked.kind], chance, last_s=frames[-1].end_s), hu


def _dynamic(asked: _Asked, frames: tuple[Frame, ...]) -> Study:
    seed, site = asked.seed, asked.site
    asked.say("body", 0.0)
    scan, hu = _perfused(asked, frames)
    body, person, rubidium = scan.body, scan.body.person, scan.patient
    counts, measured, reference = _filmed(asked, scan, attenuation(hu), frames)
    asked.say("CT", 0.95)
    acquisition = replace(
        _acquisition(asked, person, rubidium.bolus.dose_bq, tracer="Rb-82", radionuclide="Rb-82"),
        ct=_ct(body.grid, hu, _generator(seed, "CT", SCANS.index(scan.state))),
        dynamic=measured,
        uptake_s=-rubidium.bolus.start_s,
        frame_duration_s=frames[0].duration_s,
    )
    facts = _facts(asked, acquisition, site.rb82_method, counts) | {
        **kinetics.truth(scan),
        "age_years": person.age_years,
        "frame_start_s": measured.frame_start_s.tolist(),
        "frame_duration_s": measured.frame_duration_s.tolist(),
        "curves": truth.curves(scan, frames),
        "lesions": [],
    }
    maps, affine = kinetics.maps(scan), measured.affine
    return Study(
        kind=asked.kind,
        acquisition=acquisition,
        organs=truth.organs(body, affine),
        lesions=LabelMap(np.zeros(measured.array.shape[1:], np.uint16), affine, {}),
        reference=reference,
        maps={"k1": maps.k1, "mbf": maps.mbf, "k2": maps.k2},
        segments=LabelMap(maps.segments.astype(np.uint16), affine, SEGMENTS),
        facts=facts,
    )


def _filmed(
    asked: _Asked, scan: kinetics.Course, mu: FloatArray, frames: tuple[Frame, ...]
) -> tuple[float, DynamicVolume, DynamicVolume | None]:
    """Counts of all frames, the series reconstructed from them, and the one from their expectation."""
    asked.say("counts", 0.2)
    scanner, affine = dynamic.cardiac(asked.site.scanner), _affine(_on_scanner(scan.body.grid))
    expected = [mean for _, mean in dynamic.expected_frames(scan, mu, scanner, frames)]
    rngs = _generator(asked.seed, "counts", SCANS.index(scan.state)).spawn(len(expected))
    counts = [counted(mean, own) for mean, own in zip(expected, rngs, strict=True)]
    starts, lasting = (np.asarray([getattr(f, name) for f in frames]) for name in ("start_s", "duration_s"))
    part = 0.35 if asked.with_reference else 0.7

    def images(of: list[Sinograms], what: str, done: float) -> DynamicVolume:
        def say(share: float) -> None:
            asked.say(what, done + part * share)

        array = dynamic.reconstruct_frames(of, scanner, asked.site.rb82_method, say)
        return DynamicVolume(array, affine, Quantity.ACTIVITY_BQML, starts, lasting)

    measured = images(counts, "frames", 0.25)
    reference = images(expected, "reference", 0.6) if asked.with_reference else None
    return sum(each.counts for each in counts), measured, reference


def _ct(grid: Grid, hu: FloatArray, rng: np.random.Generator) -> Volume:
    """The CT at the slices of the PET and twice its resolution in the plane."""
    z, y, x = grid.shape
    coarse = Grid((z // 2, y, x), (2 * grid.step_mm[0], *grid.step_mm[1:]), grid.bottom_mm)
    array = ct_noise(pairs_of_slices(hu), coarse, rng)
    return Volume(np.clip(np.rint(array), -1024.0, 3071.0).astype(np.float32), _affine(coarse), Quantity.HU)


def _on_scanner(grid: Grid) -> Grid:
    """The reconstruction's grid over a fine one."""
    (z, y, x), (dz, dy, dx) = grid.shape, grid.step_mm
    return Grid((z // 2, y // 2, x // 2), (2 * dz, 2 * dy, 2 * dx), grid.bottom_mm)


def _affine(grid: Grid) -> Affine:
    """(z, y, x, 1) → LPS mm; the patient's axes are those of LPS."""
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    for axis, (world, places, step) in enumerate(zip((2, 1, 0), grid.axes, grid.step_mm, strict=True)):
        affine[world, axis], affine[world, 3] = step, float(places[0])
    return affine


def _facts(asked: _Asked, acquisition: Acquisition, method: Method, counts: float) -> dict[str, Json]:
    scanner, geometry = asked.site.scanner, asked.site.scanner.geometry
    return {
        "kind": asked.kind,
        "seed": asked.seed,
        "tracer": acquisition.tracer,
        "radionuclide": acquisition.radionuclide,
        "half_life_s": acquisition.half_life_s,
        "dose_bq": acquisition.dose_bq,
        "uptake_s": acquisition.uptake_s,
        "weight_kg": acquisition.weight_kg,
        "height_m": acquisition.height_m,
        "sex": acquisition.sex,
        "prompts": counts,
        "reference": REFERENCE[asked.kind],
        "scanner": {
            "voxel_mm": [scanner.slice_mm, geometry.pixel_mm, geometry.pixel_mm],
            "fwhm_mm": scanner.fwhm_mm,
            "tof_fwhm_ps": geometry.tof_fwhm_ps,
            "iterations": method.iterations,
            "subsets": geometry.subsets,
            "filter_fwhm_mm": method.filter_fwhm_mm,
            "psf_fwhm_mm": method.psf_fwhm_mm,
        },
    }
