"""The kinds of objects that are written of a result, by the words that manifests and configurations use."""

from __future__ import annotations

from typing import Final

from config.destinations import OBJECT_KINDS

KINDS: Final[tuple[str, ...]] = (*OBJECT_KINDS, "sr_labelmap")
"""What a site may ask for; and "sr_labelmap", the report that refers to the Label Map instead of the Segmentation."""
NOT_PROCESSED: Final = "not_processed"
"""The report that says why there is nothing else."""
