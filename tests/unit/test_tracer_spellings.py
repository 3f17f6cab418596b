"""How people write tracers in Radiopharmaceutical (0018,0031), in many languages, and what only looks like one."""

from __future__ import annotations

import re
import time

import pytest

from dicom_io import radionuclides, radiopharmaceuticals
from dicom_io.radiopharmaceuticals import AGENTS, FAMILIES, IN_SERIES_TEXT
from dicom_io.tracer import resolve

SECONDS = {
    "F-18": 6586.2,
    "Ga-68": 4062.6,
    "Cu-64": 45722.0,
    "Rb-82": 75.0,
    "C-11": 1221.8,
    "N-13": 597.9,
    "O-15": 122.24,
    "Zr-89": 282276.0,
    "I-124": 360806.0,
}
SPELLINGS: dict[tuple[str, str], str] = {
    ("FDG", "F-18"): (
        # English and as scanners send it
        "FDG|fdg|ＦＤＧ|18F-FDG|[18F]FDG|[¹⁸F]FDG|F18 FDG|18FDG|18FFDG|F-18-FDG|^18^F-FDG|FDG-F18|FDGF18|FDG 18F"
        "|FDG_F18|FDG -- fluorodeoxyglucose|Fluorodeoxyglucose|Fluorodeoxyglucose F18|Fluorodeoxyglucose F^18^"
        "|Fludeoxyglucose"
        "|Fluoro-2-deoxy-D-glucose|2-deoxy-2-[18F]fluoro-D-glucose|Fluoro Deoxy Glucose|fluoro-D-glucose"
        # German, Dutch, Swedish, Danish, Finnish
        "|Fluordesoxyglukose|Fluordesoxyglucose (F-18)|Fludesoxyglucose|Fluor-18-Desoxyglukose|Fluordeoxyglucose"
        "|fluordeoxyglukos|fludeoxiglukos|fluordeoxyglukose|fluorodeoksiglukoosi"
        # French, Spanish, Italian, Portuguese
        "|fluorodésoxyglucose|fluorodésoxyglucose (18F)|Fludésoxyglucose|désoxyfluoroglucose"
        "|fluorodesoxiglucosa|Fludesoxiglucosa|fluordesoxiglucosa|desoxifluoroglucosa"
        "|Fluorodesossiglucosio|fluorodeossiglucosio|desossiglucosio|Desoxiglicose|fluordesoxiglicose|Fludesoxiglucose"
        # Polish, Czech, Hungarian, Turkish
        "|fluorodeoksyglukoza|fluorodezoksyglukoza|fluorodeoxyglukóza|fluorodezoxiglükóz|Florodeoksiglukoz|FLORODEOKSİGLİKOZ"
        # Russian, Greek, Japanese, Chinese, Korean
        "|Фтордезоксиглюкоза, 18F|18F-ФДГ|флудезоксиглюкоза|φθοροδεοξυγλυκόζη|フルオロデオキシグルコース"
        "|フルデオキシグルコース|フルオロデオキシグルコース(18F)|氟[18F]脱氧葡萄糖|氟代脱氧葡萄糖|2-氟-2-脱氧-D-葡萄糖|去氧葡萄糖"
        "|플루오로데옥시글루코스|플루데옥시글루코스"
    ),
    ("PSMA-11", "Ga-68"): (
        "PSMA-11|Ga-68 PSMA-11|68Ga-PSMA-11|68Ga-PSMA11|68Ga-PSMA-HBED-CC|PSMA-HBED-CC"
        "|Gallium (68Ga) gozetotide|Illuccix|Locametz|Gallium-68 PSMA-11|Galio-68 PSMA-11|ガリウム68 PSMA-11"
    ),
    ("AlF-PSMA-11", "F-18"): "[18F]AlF-PSMA-11|Al18F-PSMA-11|Al-18F-PSMA-11",
    ("PSMA-1007", "F-18"): "PSMA-1007|18F-PSMA-1007|[18F]PSMA 1007|PSMA1007 F18|18F-PSMA1007",
    ("PSMA-617", "Ga-68"): "PSMA-617|68Ga-PSMA-617|vipivotide tetraxetan",
    ("PSMA-I&T", "Ga-68"): "PSMA-I&T|68Ga-PSMA I&T|PSMA-I and T",
    ("DCFPyL", "F-18"): "DCFPyL|18F-DCFPyL|18F-DCFPyL PSMA|Piflufolastat F 18|PYLARIFY|Pylclari|DCFPYL-F18",
    ("rhPSMA-7.3", "F-18"): "rhPSMA-7.3|18F-rhPSMA-7.3|Flotufolastat F18|POSLUMA",
    ("PSMA", "F-18"): "PSMA|18F-PSMA|F18 PSMA",
    ("PSMA", "Ga-68"): "PSMA|Ga68 PSMA|68Ga-PSMA|68GaPSMA|Gallium PSMA|Gallium-68-PSMA|Ga-PSMA",
    ("PSMA", "Cu-64"): "Cu-64 PSMA|64Cu-PSMA|Copper PSMA",
    ("bisPSMA", "Cu-64"): "64Cu-SAR-bisPSMA",
    ("DOTATATE", "Ga-68"): "DOTATATE|68Ga-DOTATATE|Ga68-DOTATATE|Netspot|DOTA-TATE|Ga-68 oxodotreotide",
    ("DOTATATE", "Cu-64"): "64Cu-DOTATATE|Cu-64 DOTATATE|Detectnet",
    ("DOTATOC", "Ga-68"): "DOTATOC|DOTA-TOC|SomaKit TOC|68Ga-edotreotide|Gallium-68 DOTATOC",
    ("DOTANOC", "Ga-68"): "Ga-68 DOTANOC|DOTA-NOC",
    ("DOTA-peptide", "Ga-68"): "68Ga DOTA-peptide|Ga68 SSTR",
    ("FAPI", "Ga-68"): "FAPI-04|FAPI-46|68Ga-FAPI-46|68Ga-DOTA-FAPI-04|FAPI-04/46|FAP-2286",
    ("FAPI", "F-18"): "18F-FAPI-74",
    ("exendin", "Ga-68"): "68Ga-exendin-4|68Ga-NODAGA-Exendin",
    ("pentixafor", "Ga-68"): "Pentixafor|68Ga-PentixaFor",
    (
        "Rb-82",
        "Rb-82",
    ): "Rubidium|82Rb|Rb-82|Rubidium chloride|82Rb chloride|Rubidio-82|Rubidium-82|Cardiogen|RUBY-FILL",
    ("NH3", "N-13"): (
        "NH3|N-13 ammonia|13N-Ammoniak|Ammonia N^13^|[13N]NH4+|amoníaco N-13|ammoniaque|Amonyak|13N-аммиак"
        "|アンモニア(13N)|氨[13N]"
    ),
    (
        "water",
        "O-15",
    ): "Water|15O-water|H2[15O]|H215O|H2O|Wasser O-15|eau|15O-H2O|agua|acqua|15O-вода|15O-水|Oxygen-water O^15^",
    ("carbon monoxide", "O-15"): "15O-carbon monoxide",
    ("FES", "F-18"): "FES|18F-FES|16α-[18F]Fluoroestradiol|Fluoroestradiol F18|Cerianna|fluorestradiol",
    ("choline", "C-11"): "Cholin|11C-Choline|methylcholine|Colina C-11|[11C]Cholin|холин",
    (
        "fluorocholine",
        "F-18",
    ): "F-18 Choline|Fluorocholine|18F-FCH|Fluorethylcholin|fluorometilcolina|18F-FECH|Fluorocholina",
    ("NaF", "F-18"): (
        "NaF|18F-NaF|Na18F|F-18 Fluoride|Fluoride|Natriumfluorid|Sodium fluoride F^18^"
        "|fluorure de sodium|fluoruro de sodio|fluoruro di sodio|fluoreto de sódio|fluorek sodu"
        "|фторид натрия|フッ化ナトリウム|氟化钠"
    ),
    ("FLT", "F-18"): "FLT|18F-FLT|3'-fluorothymidine|3'-deoxy-3'-[18F]fluorothymidine|fluorotimidina",
    ("fluciclovine", "F-18"): "Fluciclovine|Axumin|18F-FACBC|fluciclovina",
    ("FET", "F-18"): "FET|18F-FET|O-(2-[18F]fluoroethyl)-L-tyrosine|Fluorethyltyrosin|fluoroetiltirosina",
    ("FDOPA", "F-18"): "FDOPA|18F-DOPA|F-DOPA|6-[18F]fluoro-L-DOPA|Fluorodopa|Fluoro-L-dopa F^18^|18F-FDOPA",
    ("FMISO", "F-18"): "FMISO|18F-FMISO|F-MISO|Fluoromisonidazole|fluoromisonidazol",
    ("FAZA", "F-18"): "FAZA|18F-FAZA|fluoroazomycin arabinoside",
    ("methionine", "C-11"): "Methionine|11C-Methionin|[11C]MET|метионин|メチオニン|metionina",
    ("acetate", "C-11"): "Acetate|11C-Acetat|acetato",
    ("raclopride", "C-11"): "Raclopride|11C-Raclopride|racloprida|Racloprid",
    ("PiB", "C-11"): "PiB|11C-PIB|Pittsburgh compound B",
    ("florbetapir", "F-18"): "Florbetapir|AV-45|Amyvid|18F-florbetapir",
    ("florbetaben", "F-18"): "Florbetaben|Neuraceq",
    ("flutemetamol", "F-18"): "Flutemetamol|Vizamyl",
    ("flortaucipir", "F-18"): "Flortaucipir|AV1451|18F-AV-1451|T807|Tauvid",
    ("MK-6240", "F-18"): "MK-6240|18F-MK6240",
    ("UCB-J", "C-11"): "UCB-J|11C-UCB-J",
    ("flurpiridaz", "F-18"): "Flurpiridaz|Flyrcado|flurpiridaz F-18",
    ("trastuzumab", "Zr-89"): "Zr-89 trastuzumab|89Zr-Trastuzumab|89Zr-DFO-trastuzumab",
    ("girentuximab", "Zr-89"): "89Zr-girentuximab|Zirconium-89 girentuximab",
    ("girentuximab", "I-124"): "124I-girentuximab|I-124 girentuximab",
    ("monoclonal antibody", "Zr-89"): "89Zr-pembrolizumab|Zr-89 antibody|89Zr-Antikörper",
    ("sodium iodide", "I-124"): "I-124 NaI|sodium iodide I-124|Natriumiodid 124I",
    ("MIBG", "I-124"): "124I-MIBG",
    ("DPA-714", "F-18"): "18F-DPA-714",
    ("PK11195", "C-11"): "(R)-[11C]PK11195",
}
WRITTEN = [(text, nuclide, name) for (name, nuclide), texts in SPELLINGS.items() for text in texts.split("|")]


def test_the_table_is_long_enough_to_mean_something() -> None:
    assert len(WRITTEN) >= 250


@pytest.mark.parametrize(("text", "nuclide", "name"), WRITTEN)
def test_a_spelling_with_its_half_life(text: str, nuclide: str, name: str) -> None:
    found = resolve([{"Radiopharmaceutical": text, "RadionuclideHalfLife": SECONDS[nuclide]}])
    assert (found.tracer, found.radionuclide, found.confidence) == (name, nuclide, "text only"), found


@pytest.mark.parametrize("text", [text for text, _, _ in WRITTEN])
def test_a_spelling_with_the_half_life_of_a_calibration_source_names_nothing(text: str) -> None:
    found = resolve([{"Radiopharmaceutical": text, "RadionuclideHalfLife": 270.95 * 86400}])
    assert (found.tracer, found.radionuclide, found.confidence) == (None, None, "conflict"), found
    assert all(conflict.endswith("half-life says Ge-68") for conflict in found.conflicts)


NOTHING = (
    "|Solution|Fluorine|18F|F-18|Glucose|glucose solution|FDGal|Fluorodeoxyglucosamine|Fluorodeoxygalactose|TFES2|FESTE"
    "|FETUS|FETT|HEALTH|PSM|state|steady state|estate|water phantom|water equivalent|Colin|Colin27|cholinesterase"
    "|anticholinergic|NAFTA|PIBAL|nonFDG-like|non-FDG|no FDG|ohne FDG|sans FDG|FDG-avid lesion|without PSMA|rest|stress"
    "|saline|Philips|Other|unknown|test"
)


@pytest.mark.parametrize("text", NOTHING.split("|"))
def test_what_names_no_tracer(text: str) -> None:
    found = resolve([{"Radiopharmaceutical": text, "RadionuclideHalfLife": SECONDS["F-18"]}])
    assert (found.tracer, found.radionuclide, found.confidence) == (None, "F-18", "none"), found
    assert resolve([{"RadionuclideHalfLife": SECONDS["F-18"]}], [text]).tracer is None


@pytest.mark.parametrize(
    "text",
    ["PET 18FDG", "FDG_WB_CTAC", "WB FDG 3D", "PET^FDG_TORSO (Adult)", "[18F]FDG brain", "ФДГ", "FDG PET/CT"],
)
def test_series_texts_that_mean_fdg(text: str) -> None:
    assert resolve([{"RadionuclideHalfLife": SECONDS["F-18"]}], [text]).tracer == "FDG"


SPELLED_NUCLIDES = {
    "F-18": "18F|F-18|F18|[18F]|F^18^|¹⁸F|Fluor-18|Fluorine-18|flúor 18|fluoro-18|Фтор-18|フッ素18|^18^Fluorine",
    "Ga-68": "68Ga|Ga-68|Ga68|[68Ga]|Gallium-68|galio 68|68-Ga|галлий-68|68GaXYZ|镓68|^68^Gallium",
    "Cu-64": "64Cu|Cu-64|Kupfer-64|cuivre 64|cobre-64|Copper 64",
    "Zr-89": "89Zr|Zr-89|Zirconium-89|Zirkonium-89|circonio 89",
    "Rb-82": "82Rb|Rb-82|Rubidio 82",
    "C-11": "11C|C-11|[11C]|Kohlenstoff-11|carbono 11|carbone-11",
    "N-13": "13N|N-13|Stickstoff-13|azote 13",
    "O-15": "15O|O-15|Sauerstoff-15|oxígeno 15",
    "I-124": "124I|I-124|Iod-124|yodo 124|jod 124",
    "Tc-94m": "94mTc|Tc-94m",
    "Mn-52m": "52mMn|Mn-52m",
    "Mn-52": "52Mn|Mn-52",
}


@pytest.mark.parametrize(
    ("text", "nuclide"), [(text, nuclide) for nuclide, texts in SPELLED_NUCLIDES.items() for text in texts.split("|")]
)
def test_spelled_radionuclides(text: str, nuclide: str) -> None:
    assert radionuclides.spelled(text) == (frozenset({nuclide}),)


@pytest.mark.parametrize(
    "text", ["118F", "F-188", "F-1", "PDF 18", "C-111", "Ag 11", "18 FDG", "44 scans", "Mn", "180"]
)
def test_what_spells_no_radionuclide(text: str) -> None:
    assert radionuclides.spelled(text) == ()


ADVERSARIAL = (
    *(
        part * 400
        for part in ("flu", "de", "dexy ", "deoxy ", "deoxy1", "18f ", "f 18 ", "mab", "no ", "fluoro ", "a", " ")
    ),
    *(
        part * 400
        for part in ("psma ", "dota ", "h2 ", "fluorodeoxy ", "sodium ", "propyl dihydro", "ﷺ", "グ", "갈", "_-")
    ),
    "deoxy" + "a " * 500,
    "no " + "x" * 1000,
)


@pytest.mark.parametrize("text", ADVERSARIAL)
def test_hostile_texts_are_quick(text: str) -> None:
    """Processor time, the best of three: a busy machine does not fail it."""
    assert min(elapsed_s({"Radiopharmaceutical": text}, "") for _ in range(3)) < 0.01
    assert min(elapsed_s({}, text) for _ in range(3)) < 0.01


def elapsed_s(item: dict[str, str], description: str) -> float:
    started = time.thread_time()
    resolve([item], [description])
    return time.thread_time() - started


def test_no_pattern_repeats_without_bound() -> None:
    """Patterns without * and + take time in proportion to the text."""
    for agent in AGENTS.values():
        assert not re.search(r"(?<!\\)[*+]", agent.pattern), agent.pattern
    for pattern, _ in radiopharmaceuticals._SPELLINGS:
        assert not re.search(r"(?<!\\)[*+]", pattern.pattern), pattern.pattern


def test_every_name_meant_in_series_text_exists() -> None:
    assert set(AGENTS) >= IN_SERIES_TEXT
    assert all(members <= set(AGENTS) for members in FAMILIES.values())
