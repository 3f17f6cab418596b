"""Radiopharmaceuticals of PET: PS3.16 CID 4021, what they are made with, and how texts spell them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from pydicom.sr.codedict import codes

from dicom_io.coded import Code
from dicom_io.radionuclides import RADIONUCLIDES, plain, scripted

Product = tuple[str | None, str | None]
"""(tracer, radionuclide): a radiopharmaceutical as it is injected; None is one that we have no name for."""


class Agent(NamedTuple):
    """A tracer: what it is made with, and how a plain text spells it (empty where it has no spelling of its own)."""

    radionuclides: tuple[str, ...]
    pattern: str


class Mention(NamedTuple):
    """A name found in a text.

    says : the name
    tracers : keys of AGENTS that it may mean
    """

    says: str
    tracers: frozenset[str]


def _agent(radionuclides: str, pattern: str) -> Agent:
    return Agent(tuple(radionuclides.split()), scripted(pattern))


_ANTIBODY = "Zr-89 Cu-64 I-124"
_GLUCOSE = r"gl[uiy][kc]oo?[sz](?!am)"
"""Glucose, glukose, glicose, glukoz, glucosio, glukoosi; glucosamine is another substance."""
_DEOXY = r"de[sz]?(?:oxi|oxy|oksi|oksy|ossi)"
"""Deoxy, desoxy, dezoksy, deossi … in Latin script."""

_NAMED: Mapping[str, Agent] = {
    "FDG": _agent(
        "F-18",
        rf"(?<![a-z])(?:18 ?f ?)?fdg(?=f ?18|[^a-z]|$)|{_DEOXY}[a-z0-9 ]{{0,24}}?{_GLUCOSE}|fluoro? ?(?:d )?{_GLUCOSE}"
        r"|デオキシ ?(?:d ?)?(?:グルコース|ブドウ糖)|[脱脫去]氧 ?(?:d ?)?葡萄?糖|дез?окси ?(?:d ?)?глюко[зс]|фдг(?!\w)"
        r"|δεοξυ ?γλυκοζ|(?:데옥시|디옥시) ?(?:글루코|포도당)|에프디지",
    ),
    "PSMA": _agent("F-18 Ga-68 Cu-64 Sc-44 Zr-89", ""),
    "PSMA-11": _agent(
        "Ga-68",
        r"(?<!alf )(?<!alf)(?<!al18f )(?<!al 18f )psma ?11(?!\d)|hbed|gozetotid|illuccix|locametz|gozellix",
    ),
    "AlF-PSMA-11": _agent("F-18", r"al ?(?:18 ?)?f ?psma ?11(?!\d)"),
    "PSMA-1007": _agent("F-18", r"psma ?1007(?!\d)|radelumin"),
    "PSMA-617": _agent("Ga-68 Cu-64 Sc-44 Zr-89", r"psma ?617(?!\d)|vipivotid"),
    "PSMA-I&T": _agent("Ga-68 Cu-64", r"psma ?i ?(?:and ?)?t(?![a-z])|zadavotid"),
    "DCFPyL": _agent("F-18", r"dcfpyl|piflufolastat|pylarify|pylclari"),
    "DCFBC": _agent("F-18", r"dcfbc"),
    "rhPSMA-7.3": _agent("F-18", r"rh ?psma|flotufolastat|posluma"),
    "JK-PSMA-7": _agent("F-18", r"jk ?psma"),
    "CTT1057": _agent("F-18", r"ctt ?1057"),
    "bisPSMA": _agent("Cu-64", r"bis ?psma"),
    "DOTA-peptide": _agent("Ga-68 Cu-64", ""),
    "DOTATATE": _agent(
        "Ga-68 Cu-64", r"(?:dota|nota) ?tate(?![a-z])|(?:ga|cu|68|64) tate(?![a-z])|netspot|detectnet|oxodotreotid"
    ),
    "DOTATOC": _agent("Ga-68 Cu-64", r"dota ?toc(?![a-z])|edotreotid|somakit"),
    "DOTANOC": _agent("Ga-68", r"dota ?noc(?![a-z])"),
    "SARTATE": _agent("Cu-64", r"sar ?tate(?![a-z])"),
    "SiTATE": _agent("F-18", r"si(?:fali?n)? ?tate(?![a-z])"),
    "AlF-NOTA-octreotide": _agent("F-18", r"nota ?octreotid"),
    "FAPI": _agent("Ga-68 F-18 Cu-64", r"fapi(?![a-z])|oncofap|fap ?2286"),
    "exendin": _agent("Ga-68 Cu-64 Zr-89", r"exendin|exenatid"),
    "pentixafor": _agent("Ga-68", r"pentixafor|cxcr ?4"),
    "Rb-82": _agent("Rb-82", r"rubidi|rb ?82|82 ?rb|cardiogen|ruby ?fill|рубиди|ルビジウム|铷|銣|루비듐"),
    "NH3": _agent("N-13", r"amm?on[iy](?:a|um)|(?<![a-z])nh[34](?![a-z0-9])|аммиак|アンモニア|氨水?(?!\w)|암모니아"),
    "water": _agent(
        "O-15",
        r"(?<![a-z])(?:water|wasser|eau|acqua|agua|woda|voda|vatten|h2 ?(?:15)? ?o)(?![a-z])(?! ?(?:phantom|equiv))"
        r"|вода|(?<!\w)水(?!\w)",
    ),
    "oxygen": _agent("O-15", r"(?<![a-z0-9])(?:15 ?o ?|o ?15 ?)?o2(?![a-z0-9])|oxygen gas"),
    "FES": _agent("F-18", r"(?<![a-z])fes(?![a-z0-9])|fluoro? ?o?estradiol|cerianna"),
    "FDHT": _agent("F-18", r"(?<![a-z])fdht(?![a-z0-9])|dihydrotestosteron"),
    "choline": _agent("C-11", ""),
    "fluorocholine": _agent("F-18", r"flu?oro? ?(?:m?eth?[yi]l ?)?(?:cholin|colina|kolin)|(?<![a-z])f[em]?ch(?![a-z])"),
    "NaF": _agent(
        "F-18",
        r"(?<![a-z])na ?(?:18 ?)?f(?![a-z])|(?:sodium|natrium) ?fluorid|fluor(?:ek|id) sodu"
        r"|(?:flu?oru?r[eo]?|fluoreto) (?:de |di )?sodi|(?:18 ?f|f ?18) fluorid|(?<![a-z])fluoride?(?![a-z])"
        r"|sodyum florur|фторид натрия|натрия фторид|フッ化ナトリウム|氟化[钠鈉]|플루오린화나트륨|불화나트륨",
    ),
    "FLT": _agent("F-18", r"(?<![a-z])flt(?![a-z])|fluoro? ?th?[yi]midin|alovudin"),
    "thymidine": _agent("C-11", ""),
    "fluciclovine": _agent("F-18", r"fluciclovin|facbc|axumin"),
    "FET": _agent("F-18", r"(?<![a-z])fet(?![a-z])|fluoro? ?eth?[yi]l ?(?:l ?)?t[yi]rosin|pixclara"),
    "FDOPA": _agent(
        "F-18",
        r"(?<![a-z])(?:18 ?f ?)?f ?dopa(?![a-z])|fluoro? ?(?:l )?dopa|(?:18 ?f|f ?18) (?:l )?dopa"
        r"|fluorodihydroxyphenyl",
    ),
    "FMISO": _agent("F-18", r"(?<![a-z])(?:18 ?f ?)?f ?miso(?![a-z])|fluoro? ?misonidazol"),
    "FAZA": _agent("F-18", r"(?<![a-z])faza(?![a-z])|fluoroazomycin"),
    "methionine": _agent(
        "C-11", r"met[ih]{1,2}onin|(?<![a-z])(?:11 ?c ?|c ?11 )met(?![a-z])|метионин|メチオニン|蛋氨酸|메티오닌"
    ),
    "acetate": _agent("C-11", r"(?<![a-z])a[cz]etat|octan(?![a-z])|ацетат"),
    "florbetapir": _agent("F-18", r"florbetapir|amyvid|(?<![a-z])av ?45(?!\d)"),
    "florbetaben": _agent("F-18", r"florbetaben|neuraceq"),
    "flutemetamol": _agent("F-18", r"flutemetamol|vizamyl"),
    "flutafuranol": _agent("F-18", r"flutafuranol|(?:nav|azd) ?4694"),
    "PiB": _agent("C-11", r"(?<![a-z])pib(?![a-z])|pitt?sburgh? (?:compound|substan[cz])"),
    "flortaucipir": _agent("F-18", r"flortaucipir|tauvid|(?<![a-z])av ?1451|(?<![a-z])t ?807(?!\d)"),
    "MK-6240": _agent("F-18", r"mk ?6240|florquinitau"),
    "PI-2620": _agent("F-18", r"pi ?2620"),
    "RO948": _agent("F-18", r"ro ?948(?!\d)|ro ?6958948"),
    "UCB-J": _agent("C-11", r"ucb ?j(?![a-z])"),
    "SynVesT-1": _agent("F-18", r"synvest|sdm ?8(?!\d)"),
    "raclopride": _agent("C-11", r"raclopri?d|ракло ?прид|ラクロプリド"),
    "PBR28": _agent("C-11", r"pbr ?28(?!\d)"),
    "PE2I": _agent("F-18 C-11", r"pe2i"),
    "DTBZ": _agent("C-11", r"(?<!fp )(?<!fp)dtbz|(?<!propyl )dihydrotetrabenazin"),
    "FP-DTBZ": _agent("F-18", r"fp ?dtbz|propyl ?dihydrotetrabenazin|(?<![a-z])av ?133(?!\d)|florbenazin"),
    "DASB": _agent("C-11", r"(?<![a-z])dasb(?![a-z])"),
    "hydroxyephedrine": _agent("C-11", r"hydroxy ?ephedrin"),
    "MIBG": _agent("I-124", r"(?<![a-z])mibg(?![a-z])|iobenguan"),
    "MFBG": _agent("F-18", r"(?<![a-z])mfbg(?![a-z])|fluorobenzylguanidin"),
    "flurpiridaz": _agent("F-18", r"flurpiridaz|flyrcado"),
    "sodium iodide": _agent(
        "I-124", r"(?<![a-z])nai(?![a-z])|(?:sodium|natrium) ?[ij]odid|[iy]odur[eo]? (?:de |di )?sodi"
    ),
    "monoclonal antibody": _agent(_ANTIBODY, ""),
    "girentuximab": _agent(_ANTIBODY, r"girentuximab|zircaix"),
    "pertuzumab": _agent(_ANTIBODY, r"pertuzumab"),
    "crefmirlimab": _agent("Zr-89", r"crefmirlimab|iab22m2c"),
}
"""The tracers that we name; every other one of CID 4021 stands under the name that the standard gives it."""

OWN_NAMES: Mapping[str, str] = {
    "Fluorodeoxyglucose": "FDG",
    "Piflufolastat": "DCFPyL",
    "Dotatate": "DOTATATE",
    "Edotreotide": "DOTATOC",
    "Rubidium chloride": "Rb-82",
    "Ammonia": "NH3",
    "Oxygen-water": "water",
    "Fluoroestradiol": "FES",
    "Sodium fluoride": "NaF",
    "Thymidine": "FLT",
    "Fluorethyltyrosin": "FET",
    "Fluoro-L-dopa": "FDOPA",
    "Fluoromisonidazole": "FMISO",
    "Pittsburgh compound B": "PiB",
    "T807": "flortaucipir",
    "RO6958948": "RO948",
    "Fluoropropyl-dihydrotetrabenazine": "FP-DTBZ",
}
"""Names of CID 4021 → ours. T807 (Xia 2013, Alzheimers Dement 9:666) became flortaucipir."""
NAMED_BY_CODE_ALONE = frozenset({"germanium", "sodium", "2FA", "ISO-1", "Df-FK", "Df-[FK](2)"})
"""Names of CID 4021 that mean something else in free text, or begin the name of another."""

_MEANING = re.compile(
    r"(?P<name>.+?) (?:\^(?P<mass>\d+m?)\^(?P<symbol>[A-Z][a-z]?)|(?P<sign>[A-Z][a-z]?)\^(?P<number>\d+m?)\^)"
)
"""`Cetuximab ^89^Zr` and `Fluorodeoxyglucose F^18^`."""
_WORDS = re.compile(r"[A-Z][a-z]+(?: [A-Za-z][a-z]+)*")


def _standard(meaning: str) -> tuple[str, str]:
    """(tracer, radionuclide) of a meaning of CID 4021; ordinary words in small letters."""
    found = _MEANING.fullmatch(meaning)
    if found is None:  # an edition of PS3.16 that writes otherwise must not go unnoticed
        raise ValueError(f"PS3.16 CID 4021: expected a name and a radionuclide, got {meaning!r}")
    name = found["name"].lower() if _WORDS.fullmatch(found["name"]) else found["name"]
    return OWN_NAMES.get(found["name"], name), f"{found['symbol'] or found['sign']}-{found['mass'] or found['number']}"


def _bounded(name: str) -> str:
    """The name as a text spells it: long words may go on (racloprida), short ones and numbers stand alone."""
    words = plain(name)
    if words.isalpha() and len(words) >= len("nifene"):
        return rf"(?<![a-z0-9]){words.removesuffix('e')}"
    return rf"(?<![a-z0-9]){words.replace(' ', ' ?')}(?![a-z0-9])"


def _agents() -> Mapping[str, Agent]:
    """Ours and those of CID 4021 together, with the radionuclides that the standard makes each of."""
    agents = dict(_NAMED)
    for concept in codes.cid4021.concepts.values():
        name, nuclide = _standard(concept.meaning)
        known = agents.get(name) or Agent((), "" if name in NAMED_BY_CODE_ALONE else _bounded(name))
        agents[name] = known._replace(radionuclides=tuple(dict.fromkeys((*known.radionuclides, nuclide))))
    return agents


AGENTS: Mapping[str, Agent] = _agents()
_ANTIBODIES_BY_NUMBER = {
    *("28H1", "7E11", "Anti-B220", "cG250-F(ab')(2)", "cMAb U36", "cU36", "DN30", "E4G10", "GA201", "J591", "MEDI-551"),
    *("R1507", "RO542908", "RO5323441", "SAR3419", "TRC105", "XmAb5574"),
}
FAMILIES: Mapping[str, frozenset[str]] = {
    "PSMA": frozenset(name for name in AGENTS if "PSMA" in name) | {"CTT1057", "DCFBC", "DCFPyL"},
    "DOTA-peptide": frozenset({"DOTA-peptide", "DOTATATE", "DOTATOC", "DOTANOC"}),
    "monoclonal antibody": frozenset(name for name in AGENTS if "mab" in name or name == "monoclonal antibody")
    | _ANTIBODIES_BY_NUMBER,
}
"""Names that stand for any of several; each is itself the tracer of a header that says no more."""
_COMMON: Mapping[str, frozenset[str]] = {
    "choline or fluorocholine": frozenset({"choline", "fluorocholine"}),
    "thymidine or FLT": frozenset({"thymidine", "FLT"}),
}
"""Words that the radionuclide must tell apart."""
_GENERIC = {
    "PSMA": r"psma",
    "DOTA-peptide": r"dota ?pept|(?<![a-z])sstr(?![a-z])|somatostatin",
    "monoclonal antibody": r"(?<![a-z])[a-z]{3,20}mab(?![a-z])|antibod|antikorper|anticorp|anticuerp",
    "choline or fluorocholine": r"cholin(?!e?ster|erg)|[ck]olina|kolin|холин|コリン|胆碱|膽鹼|콜린",
    "thymidine or FLT": r"th?[yi]midin",
}
_SPELLINGS: tuple[tuple[re.Pattern[str], Mention], ...] = (
    *((re.compile(agent.pattern), Mention(name, frozenset({name}))) for name, agent in AGENTS.items() if agent.pattern),
    *(
        (re.compile(scripted(_GENERIC[name])), Mention(name, members))
        for name, members in {**FAMILIES, **_COMMON}.items()
    ),
)

IN_SERIES_TEXT = frozenset(_NAMED) - {"water", "oxygen", "FLT", "acetate", "NH3", "sodium iodide"} | {
    "trastuzumab",
    "flumazenil",
    "fallypride",
}
"""Names that mean a tracer in a series description too; `water` may be a phantom, `FLT` a filter."""

PRODUCTS: frozenset[Product] = frozenset(
    {(name, nuclide) for name, agent in AGENTS.items() for nuclide in agent.radionuclides}
    | {(None, nuclide) for nuclide in RADIONUCLIDES if nuclide != "Rb-82"}  # which is given as chloride only
    | {(None, None)}
)
"""Everything that may have been injected; of what we have no name for, no more than its radionuclide is known."""
CODED_PRODUCTS: Mapping[Code, tuple[str, str]] = {
    Code(concept.scheme_designator.upper(), concept.value): _standard(concept.meaning)
    for concept in codes.cid4021.concepts.values()
} | {Code("SCT", "Y-X1743"): ("FDG", "F-18")}
"""Every code of CID 4021, and the one that GE Discovery sends for FDG under 99SDM."""

_NEGATED = re.compile(
    r"(?<![a-z])(?:non?|not|without|ohne|kein[a-z]{0,2}|sans|sin|senza|sem|zonder|bez|utan|uden|без)"
    r" ((?:18 ?f |f ?18 )?\w{2,20}(?: \d{1,4})?)"
)
_REMARKED = re.compile(r"(?<!\w)\w{2,20} (?:avid|positiv|negativ|naiv)\w{0,3}(?!\w)")
"""FDG-avid, PSMA-negative: about a lesion or an earlier scan."""


def mentions(text: str) -> tuple[Mention, ...]:
    """The tracers that a text names, each mention for itself; a member of a family hides the family's own mention."""
    return _found(_NEGATED.sub(" ", _REMARKED.sub(" ", plain(text))))


def denials(text: str) -> tuple[Mention, ...]:
    """The tracers that a text says it is not about: `non-FDG`."""
    return tuple(mention for denied in _NEGATED.findall(plain(text)) for mention in _found(denied))


def _found(words: str) -> tuple[Mention, ...]:
    matched = [mention for pattern, mention in _SPELLINGS if pattern.search(words)]
    return tuple(one for one in matched if not any(other.tracers < one.tracers for other in matched))
