"""A rule may name an engine that is announced but not there yet: its studies are recognised, its jobs say so."""

from tests import make
from tests.flow.running import FDG_RULE, RunningNode
from tests.peers import Sender, StoreScp

RULE = {**FDG_RULE, "name": "later", "engine": "psma_detection", "parameters": {}}
RULE["inputs"] = {**RULE["inputs"], "ct": {"modality": "CT", "pairs_with": "pet"}}


def test_a_job_for_an_announced_engine_is_rejected_and_says_so(tmp_path):
    with StoreScp(tmp_path / "pacs") as pacs, RunningNode(tmp_path / "node", pacs.port, rules=(RULE,)) as node:
        said = node.command("check").stdout
        assert "later: not in this version" in " ".join(said.split())
        made = make.study(tmp_path / "study", seed=3, pet_shape=(12, 16, 16), ct_shape=(12, 16, 16))
        Sender(node.port).send([*made.pet, *made.ct])
        (job,) = node.wait_for_jobs(1, {"rejected"})
        assert job["reason_code"] == "no-engine"
        assert job["reason"].startswith("no engine: psma_detection is not in this version of tracerd")
        assert not list(pacs.output.iterdir())
