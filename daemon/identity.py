"""Who a result is: the job key that everything deterministic hangs on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Work:
    """What makes a job that job: change any of it and the results get new UIDs.

    contents : slot → sorted content digests of the instances that fill it
    """

    installation_id: str
    tracerd_version: str
    engine: str
    engine_version: str
    weights_sha256: str | None
    parameters: Mapping[str, Any]
    contents: Mapping[str, list[str]]
    rerun: int

    def key(self) -> str:
        """sha256 over the canonical JSON of all fields."""
        document = {
            "installation": self.installation_id,
            "tracerd": self.tracerd_version,
            "engine": self.engine,
            "engine_version": self.engine_version,
            "weights": self.weights_sha256,
            "parameters": dict(self.parameters),
            "contents": {slot: sorted(digests) for slot, digests in self.contents.items()},
            "rerun": self.rerun,
        }
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()
